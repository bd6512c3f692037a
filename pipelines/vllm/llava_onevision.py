"""LLaVA-OneVision inside vLLM, pruned: frames merge, are pooled, and the clip's most different tokens stay.

Shapes: F frames, n patches of a frame, D width of the encoder, W width of the LLM, U pooled tokens of all frames.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from vllm.model_executor.models import llava_onevision as stock
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import MultiModalFeatureSpec, MultiModalKwargsItem

from pipelines.vllm.model import PrunedVideos, video_fields
from pipelines.vllm.placeholders import CountedVideos
from pipelines.vllm.tower import encoder_pass, running, take_attention
from videoprune.plug.encoder_goal import Layout
from videoprune.plug.encoder_pass import EncoderPass
from videoprune.plug.families.llava import reduce_pooled

_ENCODER = "siglip_vision_model"
_STRIDE = 2  # of the pooling


class CountedLlavaOnevision(CountedVideos, stock.LlavaOnevisionMultiModalProcessor):
    pools = True
    extra = 1  # the newline behind a clip

    def frames_of(self, clip: Any) -> int:
        return len(clip["pixel_values_videos"].data)


@MULTIMODAL_REGISTRY.register_processor(
    CountedLlavaOnevision,
    info=stock.LlavaOnevisionProcessingInfo,
    dummy_inputs=stock.LlavaOnevisionDummyInputsBuilder,
)
class PrunedLlavaOnevision(PrunedVideos, stock.LlavaOnevisionForConditionalGeneration):
    """Its LLM counts in one row. vLLM lets a model say where its tokens stand only where there are three (M-RoPE), so
    the plug-in gives it three, all equal (`positions.three_rows`)."""

    pools = True
    extra = 1
    supports_mrope: ClassVar[bool] = True

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        kind = self.config.vision_config.model_type
        if kind != _ENCODER:
            raise ValueError(f"vision_config.model_type={kind!r}; allowed inside vLLM: {_ENCODER}")
        self.begin(vllm_config, self.config.text_config.hidden_size)
        take_attention([layer.self_attn for layer in self._encoder.encoder.layers])

    @property
    def _encoder(self) -> Any:
        return self.vision_tower.vision_model

    @property
    def _side(self) -> int:
        """Patches along a side of a frame."""
        return self.config.vision_config.image_size // self.config.vision_config.patch_size

    def dense_ids(self, fields: MultiModalKwargsItem) -> list[int]:
        frames, pooled = len(fields["pixel_values_videos"].data), math.ceil(self._side / _STRIDE)
        return [self.config.video_token_id] * (frames * pooled**2 + self.extra)

    def unpruned_positions(self, ids: list[int], features: list[MultiModalFeatureSpec]) -> Tensor:
        return torch.arange(len(ids)).expand(3, -1)

    def _process_video_pixels(self, inputs: Any) -> list[Tensor]:
        """One clip a pass, so that what stays of a clip does not depend on who else asks."""
        return [self._clip(pixels) for pixels in inputs["pixel_values_videos"]]

    def _clip(self, pixels: Tensor) -> Tensor:
        """pixels: (F, 3, H, W)."""
        rows, left = self._encoded(pixels)
        embeddings = torch.cat([rows, self.image_newline[None].to(rows)])
        fields = video_fields(pixel_values_videos=pixels)
        return self.with_positions(embeddings, left.cpu(), len(pixels), fields)

    def _encoded(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Features (K, W) of the pooled tokens that are left, and which these are: bool (U,)."""
        frames, side = len(pixels), self._side
        layout = Layout([side**2] * frames, grids=[(side, side)] * frames)
        run = encoder_pass(self.prune, layout, len(self._encoder.encoder.layers))
        with running(run):
            x = self._layers(run, self._encoder.embeddings(pixels))
        units = run.rows.split(x)[1]
        full = run.expand(units, fill=None, end=True).flatten(0, 1).unflatten(0, (frames, -1))  # (F, n, D)
        pooled = self.apply_pooling(self.multi_modal_projector(full), _STRIDE)
        reduced = reduce_pooled(pooled, run, run.clips).flatten(0, 1)
        left = ~reduced[:, 0].isnan()
        return reduced[left], left

    def _layers(self, run: EncoderPass, x: Tensor) -> Tensor:
        """(F, n, D) through the encoder's layers, with the pass between them -> packed (N, D)."""
        for index, layer in enumerate(self._encoder.encoder.layers):
            x, _ = run.after(index, layer(x)[0].flatten(0, 1))
            x = x.unflatten(0, (len(run.dense) if run.rows.even else 1, -1))
        return x.flatten(0, 1)
