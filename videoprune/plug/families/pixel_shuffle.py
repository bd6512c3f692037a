"""InternVL3 and SmolVLM2: square frames in a batch, patches joined by a pixel shuffle behind the encoder."""

from __future__ import annotations

from torch import nn

from videoprune.plug.families.base import Batched, StockModel


class InternVL(StockModel, Batched):
    """2 x 2 patches at a downsample_ratio of a half; a CLS token in front."""

    model_types = ("internvl",)
    videos_are_images = True
    blocks_path = "encoder.layer"
    prefix = 1

    @property
    def unit_side(self) -> int:  # type: ignore[override]
        return round(1 / self.core.config.downsample_ratio)

    def attention(self, block: nn.Module) -> nn.Module:
        return block.attention  # type: ignore[return-value]


class SmolVLM(StockModel, Batched):
    """scale_factor x scale_factor patches."""

    model_types = ("smolvlm",)
    videos_are_images = True

    @property
    def vision(self) -> nn.Module:
        return self.core.vision_model

    @property
    def language_model(self) -> nn.Module:
        return self.core.text_model

    @property
    def unit_side(self) -> int:  # type: ignore[override]
        return self.core.config.scale_factor
