"""The configuration of a `MultiEncoderVLM`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

FREQUENCIES = 6  # of each coordinate of a token: time, row, column


class MultiEncoderConfig(PreTrainedConfig):
    """encoders: one mapping per encoder with `name`, `model_type` and that type's own fields, plus optional
    `mean` and `std` (three numbers each). text_config: any causal LM. num_frames: frames per clip in training.
    encoder_ranks: rank of each encoder's features at METEOR's three cuts, from `videoprune calibrate`.
    lambdas: calibrated lambda of adaptive LLM pruning, by `calibration_key`. visual_step: by how much a visual token
    moves the position on, in (0, 1]; a token of text moves it by 1 (V2PE, arXiv 2412.09616).
    """

    model_type = "videoprune_multi_encoder"

    def __init__(
        self,
        encoders: Sequence[dict[str, Any]] = (),
        text_config: dict[str, Any] | None = None,
        num_frames: int = 8,
        encoder_ranks: dict[str, list[float]] | None = None,
        lambdas: dict[str, float] | None = None,
        visual_step: float = 1.0,
        **kwargs: Any,
    ) -> None:
        self.encoders = [dict(e) for e in encoders]
        self.text_config = dict(text_config or {})
        self.num_frames = num_frames
        self.encoder_ranks = encoder_ranks
        self.lambdas = dict(lambdas or {})
        if not 0 < visual_step <= 1:
            raise ValueError(f"visual_step={visual_step}; allowed: above 0, up to 1")
        self.visual_step = visual_step
        super().__init__(**kwargs)

    @property
    def frame_side(self) -> int:
        """Height and width that frames are best decoded to: the largest that any encoder looks at."""
        # Asked for each clip: a configuration is made only of an encoder that does not say.
        return max(int(e.get("image_size") or encoder_config(e).image_size) for e in self.encoders)


def encoder_config(entry: dict[str, Any]) -> PreTrainedConfig:
    own = {k: v for k, v in entry.items() if k not in ("name", "mean", "std")}
    return sub_config(own, f"encoders: {entry.get('name')!r}")


def sub_config(data: dict[str, Any], name: str) -> PreTrainedConfig:
    kind = str(data.get("model_type"))
    if kind not in CONFIG_MAPPING:
        raise ValueError(f"{name}: model_type={kind!r}; allowed: a model type of transformers")
    return CONFIG_MAPPING[kind](**{k: v for k, v in data.items() if k != "model_type"})
