"""Qwen2.5-VL and Qwen3-VL: packed frames, 2 x 2 patches joined behind the encoder, windows, DeepStack taps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers.vision_utils import get_vision_window_index

from videoprune.plug.encoder_goal import Layout
from videoprune.plug.families.base import Hook, Packed, StockModel


class QwenVL(StockModel, Packed):
    model_types = ("qwen2_5_vl", "qwen3_vl")

    @property
    def vision(self) -> nn.Module:
        return self.core.visual

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(self.core.visual.blocks)

    def attention(self, block: nn.Module) -> nn.Module:
        return block.attn  # type: ignore[return-value]

    def windowed(self, index: int) -> bool:
        full = getattr(self.core.visual, "fullatt_block_indexes", None)
        return full is not None and index not in full

    def layout(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Layout:
        visual, grid = self.core.visual, kwargs["grid_thw"]
        windows = order = None
        if hasattr(visual, "fullatt_block_indexes"):
            order, edges = get_vision_window_index(
                grid,
                spatial_merge_size=visual.spatial_merge_size,
                window_size=visual.window_size,
                patch_size=visual.patch_size,
                kwargs={},
            )
            windows = edges.diff().tolist()
        return Layout(
            self.frame_lengths(grid),
            unit=visual.spatial_merge_size**2,
            windows=windows,
            clips=grid[:, 0].tolist(),
            grids=self.grids(grid, visual.spatial_merge_size),
            order=order,
        )

    def hooks(self) -> list[Hook]:
        """Survivors' rows of each DeepStack tap stay their own; those of units that merge later are left out."""
        visual = self.core.visual
        found: list[Hook] = [
            (visual.merger, "pre", self.cut_input),
            (visual.merger, "post", self.expand_features),
        ]
        return [
            *found,
            *((tap, "post", self.expand_tap) for tap in getattr(visual, "deepstack_merger_list", ())),
        ]
