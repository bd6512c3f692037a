"""Qwen2.5-VL inside vLLM, pruned: windows lose tokens, survivors keep the seconds that their positions count.

Shapes: N patches of a clip, U units of all its frames, W width of the LLM.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.models import qwen2_5_vl as stock
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import MultiModalKwargsItem

from pipelines.vllm.model import video_fields
from pipelines.vllm.qwen_vl import CountedQwenVL, PrunedQwenVL
from pipelines.vllm.tower import encoder_pass, running, take_attention
from videoprune.plug.encoder_goal import Layout
from videoprune.plug.encoder_pass import EncoderPass
from videoprune.plug.families.base import NAN, Packed


class CountedQwen2_5VL(CountedQwenVL, stock.Qwen2_5_VLMultiModalProcessor):  # noqa: N801
    pass


@MULTIMODAL_REGISTRY.register_processor(
    CountedQwen2_5VL, info=stock.Qwen2_5_VLProcessingInfo, dummy_inputs=stock.Qwen2_5_VLDummyInputsBuilder
)
class PrunedQwen2_5VL(PrunedQwenVL, stock.Qwen2_5_VLForConditionalGeneration):  # noqa: N801
    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.begin(vllm_config, self.visual.out_hidden_size)
        take_attention([block.attn for block in self.visual.blocks], self.visual.fullatt_block_indexes)

    def dense_ids(self, fields: MultiModalKwargsItem) -> list[int]:
        steps, height, width = fields["video_grid_thw"].data.tolist()
        return [self.config.video_token_id] * (steps * height * width // self.visual.spatial_merge_unit)

    def _process_video_input(self, video_input: Any) -> tuple[Tensor, ...]:
        clips, seconds = self.each_clip(video_input), video_input["second_per_grid_ts"]
        steps = [None] * len(clips) if seconds is None else list(seconds)
        return tuple(self._clip(*clip, step) for clip, step in zip(clips, steps, strict=True))

    def _clip(self, pixels: Tensor, grid: list[int], seconds: Tensor | None) -> Tensor:
        """seconds: from one step of the clip to the next, where the processor says it."""
        fields = {"video_grid_thw": torch.tensor(grid)}
        if seconds is not None:
            fields["second_per_grid_ts"] = seconds
        rows, left = self._encoded(pixels, grid)
        return self.with_positions(rows, left.cpu(), grid[0], video_fields(**fields))

    def _encoded(self, pixels: Tensor, grid: list[int]) -> tuple[Tensor, Tensor]:
        """Pixels (N, inputs of a patch) -> features (K, W) of the units that are left, row by row, and which these are:
        bool (U,)."""
        visual, thw = self.visual, torch.tensor([grid])
        order, edges = visual.get_window_index_thw(*grid)
        layout = Layout(
            Packed.frame_lengths(thw),
            unit=visual.spatial_merge_unit,
            windows=edges.diff(prepend=edges.new_zeros(1)).tolist(),
            clips=[grid[0]],
            grids=Packed.grids(thw, visual.spatial_merge_size),
            order=order,
        )
        run = encoder_pass(self.prune, layout, len(visual.blocks))
        with running(run):
            x, back = self._blocks(run, pixels, grid)
        features = run.expand(visual.merger(x), fill=NAN, end=True)[back]
        left = run.left(back.device)[back]
        return features[left], left

    def _blocks(self, run: EncoderPass, pixels: Tensor, grid: list[int]) -> tuple[Tensor, Tensor]:
        """The encoder's parts in the order in which vLLM calls them, with the pass between the blocks; and how its
        order, window by window, goes back to rows."""
        visual = self.visual
        x = visual.patch_embed(visual.input_norm(pixels.to(visual.device), visual.dtype))
        known = visual.prepare_encoder_metadata([grid])
        x = x.unflatten(0, (-1, visual.spatial_merge_unit))[known["window_index"]].flatten(0, 1)
        x = self.through_blocks(run, x, known, lengths="_full")
        if x.dtype == torch.float16:
            x = stock.cast_overflow_tensors(x)
        return x, known["reverse_indices"]
