"""Questions about clips as vLLM takes them, and how many tokens go where: for runs that compare it with the rest.

Shapes: T frames, H x W pixels.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from transformers import AutoTokenizer

from videoprune.config import PruneConfig
from videoprune.cost.shapes import VisionShape
from videoprune.cost.token_flow import token_flow
from videoprune.models.inputs import PlainInputs
from videoprune.models.processor_inputs import ProcessorInputs, video_metadata
from videoprune.models.shapes import model_shape
from videoprune.plug.settings import Settings, own_settings
from videoprune.prune.counts import kept_units
from videoprune.types import Trace, VideoFrames

_MICROSECONDS = 1e6  # a demo model's prompt says the times of frames, which are rounded nowhere else
_ANY_TEXT = 2**40


class Prompts:
    """place: what vLLM loads the model from. config: of the model. Prompts are those of `Engine`, token by token; vLLM
    fills in what stands for the clip."""

    def __init__(self, place: str, config: Any) -> None:
        self.config, self.own = config, own_settings(config)
        self.plain: PlainInputs | None = None
        self.processor: ProcessorInputs | None = None
        if "frame_size" in self.own:
            self.plain = PlainInputs(config, AutoTokenizer.from_pretrained(place))
        else:
            self.processor = ProcessorInputs(place)

    def __call__(self, frames: VideoFrames, text: str) -> dict[str, Any]:
        if self.plain is not None:
            ids, rate = [self.config.video_token_id, *self.plain.text_ids(text)], _MICROSECONDS
        else:
            assert self.processor is not None
            ids, rate = self.processor.plain_ids(text), 1000.0
        facts = asdict(video_metadata(frames.pts_seconds, frames.duration_seconds, rate=rate))
        video = (frames.pixels.numpy(), {**facts, "do_sample_frames": False})
        return {"prompt_token_ids": ids, "multi_modal_data": {"video": [video]}}


def clip_trace(config: Any, prune: PruneConfig, frames: int, size: tuple[int, int]) -> Trace:
    """Visual tokens of a clip of so many frames, by stage. size: height and width that the encoder sees."""
    shape = model_shape(config)
    vision = shape.encoders[0]
    assert isinstance(vision, VisionShape)
    whole = frames + -frames % vision.temporal
    flow = token_flow(shape, prune, whole, prompt_tokens=_ANY_TEXT, size=size)
    settings = Settings(prune)
    if not settings.drops:
        return Trace(flow.dense, {"vision": (flow.dense, flow.dense)}, flow.dense, flow.visual)
    encoder = flow.encoders[0]
    units, left = encoder.patches // vision.unit_side**2, flow.visual[0]
    if vision.pool > 1:  # stage 2 is behind the pooling, else it is the encoder's end
        left = encoder.frames * kept_units(vision.dense, settings.keep)
    return Trace(flow.dense, {"vision": (units, left)}, flow.visual[0], flow.visual)
