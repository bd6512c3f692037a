"""Qwen3-VL inside vLLM, pruned: timestamps between frames and DeepStack taps follow the survivors.

Shapes: N patches of a clip, U units of all its frames, W width of the LLM, times 1 + taps where DeepStack goes along.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.models import qwen3_vl as stock
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import MultiModalKwargsItem

from pipelines.vllm.model import video_fields
from pipelines.vllm.qwen_vl import CountedQwenVL, PrunedQwenVL
from pipelines.vllm.tower import encoder_pass, running, take_attention
from videoprune.plug.encoder_goal import Layout
from videoprune.plug.encoder_pass import EncoderPass
from videoprune.plug.families.base import NAN, Packed


class CountedQwen3VL(CountedQwenVL, stock.Qwen3VLMultiModalProcessor):
    pass


@MULTIMODAL_REGISTRY.register_processor(
    CountedQwen3VL, info=stock.Qwen3VLProcessingInfo, dummy_inputs=stock.Qwen3VLDummyInputsBuilder
)
class PrunedQwen3VL(PrunedQwenVL, stock.Qwen3VLForConditionalGeneration):
    def __init__(self, *, vllm_config: Any, prefix: str = "model") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.begin(vllm_config, self.visual_dim + self.multiscale_dim)
        take_attention([block.attn for block in self.visual.blocks])

    def dense_ids(self, fields: MultiModalKwargsItem) -> list[int]:
        (steps, height, width), times = fields["video_grid_thw"].data.tolist(), fields["timestamps"].data
        units = height * width // self.visual.spatial_merge_size**2
        return self._placeholders([units] * steps, times)

    def _process_video_input(self, video_input: Any) -> tuple[Tensor, ...]:
        clips = zip(self.each_clip(video_input), video_input["timestamps"], strict=True)
        return tuple(self._clip(*clip, times) for clip, times in clips)

    def _clip(self, pixels: Tensor, grid: list[int], times: Any) -> Tensor:
        fields = video_fields(video_grid_thw=torch.tensor(grid), timestamps=times)
        rows, left = self._encoded(pixels, grid)
        left = left.cpu()
        counts = left.view(grid[0], -1).sum(1).tolist()
        embeddings = self._create_final_video_embeddings(rows, counts, times, grid, None)
        return self.with_positions(embeddings, left, grid[0], fields)

    def _encoded(self, pixels: Tensor, grid: list[int]) -> tuple[Tensor, Tensor]:
        """Pixels (N, inputs of a patch) -> features (K, W times 1 + taps) of the units that are left, and which these
        are: bool (U,)."""
        visual, thw = self.visual, torch.tensor([grid])
        layout = Layout(
            Packed.frame_lengths(thw),
            unit=visual.spatial_merge_size**2,
            clips=[grid[0]],
            grids=Packed.grids(thw, visual.spatial_merge_size),
        )
        run = encoder_pass(self.prune, layout, len(visual.blocks))
        with running(run):
            x, taps = self._blocks(run, pixels, grid)
        features = torch.cat([run.expand(visual.merger(x), fill=NAN, end=True), *taps], 1)
        left = run.left(features.device)
        return features[left], left

    def _blocks(self, run: EncoderPass, pixels: Tensor, grid: list[int]) -> tuple[Tensor, list[Tensor]]:
        """The encoder's parts in the order in which vLLM calls them, with the pass between the blocks."""
        visual, taps = self.visual, list[Tensor]()
        x = visual.patch_embed(visual.input_norm(pixels.to(visual.device, non_blocking=True), visual.dtype))
        known = visual.prepare_encoder_metadata([grid])

        def tapped(index: int, x: Tensor) -> None:
            if index in visual.deepstack_visual_indexes:
                tap = visual.deepstack_merger_list[visual.deepstack_visual_indexes.index(index)]
                taps.append(run.expand(tap(x), fill=NAN))

        return self.through_blocks(run, x + known["pos_embeds"], known, seen=tapped), taps

    def _placeholders(self, counts: list[int], times: Any) -> list[int]:
        """Ids of a clip with so many tokens in each of its time steps."""
        found: list[int] = stock.Qwen3VLMultiModalProcessor.get_video_repl(
            tokens_per_frame=counts,
            timestamps=times,
            tokenizer=self._tokenizer,
            vision_start_token_id=self.config.vision_start_token_id,
            vision_end_token_id=self.config.vision_end_token_id,
            video_token_id=self.config.video_token_id,
        ).full
        return found
