"""VideoLLaMA3: packed frames of any size, averaged over merge_size x merge_size patches behind the encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from videoprune.plug.encoder_goal import Layout
from videoprune.plug.families.base import NAN, Hook, Packed, StockModel


class VideoLlama3(StockModel, Packed):
    model_types = ("video_llama_3",)

    @property
    def vision(self) -> nn.Module:
        return self.core.vision_model

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(self.core.vision_model.encoder.layers)

    def layout(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Layout:
        sides = set(kwargs["merge_sizes"].tolist())
        if len(sides) > 1:
            raise ValueError(f"merge_sizes={sorted(sides)}; allowed in one call with pruning: one value")
        grid, side = kwargs["grid_thw"], sides.pop()
        return Layout(
            self.frame_lengths(grid), unit=side**2, clips=grid[:, 0].tolist(), grids=self.grids(grid, side)
        )

    def hooks(self) -> list[Hook]:
        """The averaging sees zeros at dropped patches, and never mixes units; the projected rows carry the mark."""
        return [
            (self.core.vision_model.encoder, "post", self.fill_dropped),
            (self.core.projector, "post", self.mark_dropped),
        ]

    def fill_dropped(self, module: nn.Module, args: Any, kwargs: Any, out: Any) -> Any:
        run = self.run()
        if run is None:
            return None
        x, _ = run.after(run.last_block, out.last_hidden_state)
        units = x.unflatten(0, (-1, run.unit))
        out.last_hidden_state = run.expand(units, fill=0.0, end=True).flatten(0, 1)
        return out

    def mark_dropped(self, module: nn.Module, args: Any, kwargs: Any, out: Tensor) -> Any:
        run = self.run()
        return None if run is None else out.masked_fill(~run.left(out.device)[:, None], NAN)
