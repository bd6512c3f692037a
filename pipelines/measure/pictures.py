"""Pictures of which tokens survive: a sheet for each frame, and one frame under several methods for a report.

Shapes: T frames of the video, F frames of an encoder (Qwen-VL sees two of the video as one), n tokens of a frame.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.measure.plan import BASELINE, Setting
from videoprune.engine import Engine
from videoprune.eval.overlay import Image, draw_tokens, sheet
from videoprune.resizing import resized
from videoprune.types import Sample, Trace, VideoFrames
from videoprune.video import Reader, Sampling, VideoError

_TILE = 320  # pixels of a picture's longer side
_MOST = 8  # methods side by side
_NEAR = 0.25  # the share kept of the methods side by side
Marks = dict[str, NDArray[np.bool_]]


def stage_marks(trace: Trace, frames: int) -> dict[str, Marks]:
    """By stage, for each encoder bool (T, n): whether a token sits there behind that stage.

    trace: of an answer about a clip that was encoded with `survivors`. A model of one encoder has no fusion: what
    leaves its encoder is what reaches the LLM.
    """
    found = trace.survivors or {}
    stages: dict[str, Marks] = {"encoder": {}, "fused": {}, "llm": {}}
    for name, one in found.items():
        for stage, marks in (("encoder", one.left), ("fused", one.fused), ("llm", one.last)):
            stages[stage][name] = _of_video(marks, frames)
    if len(found) == 1:
        stages["encoder"] = stages.pop("fused")
    return stages


def pictures(frames: VideoFrames, trace: Trace) -> Iterator[Image]:
    """One sheet for each frame: a row for each encoder, a column for each stage."""
    found = trace.survivors or {}
    stages = stage_marks(trace, len(frames))
    owners = {name: _of_video(one.owner, len(frames)) for name, one in found.items()}
    for t, (image, pts) in enumerate(zip(_tiles(frames), frames.pts_seconds, strict=True)):
        rows = []
        for name, one in found.items():
            row = [(f"{name} {pts:.1f}s", image)]
            for stage, marks in stages.items():
                alive = marks[name][t]
                title = f"{stage} {int(alive.sum())}/{alive.size}"
                row.append((title, draw_tokens(image, one.grid, owners[name][t], alive)))
            rows.append(row)
        yield sheet(rows)


def kept_pictures(engine: Engine, settings: Sequence[Setting], sample: Sample) -> list[dict[str, str]]:
    """The middle frame of a clip under each method at about `_NEAR`: method, title, PNG as base64."""
    import matplotlib.image

    sampling = Sampling(max_frames=engine.num_frames, until=sample.until)
    try:
        with Reader() as reader:
            frames = reader.read(sample.video, sampling, size=engine.frame_size)
            clear = reader.read(sample.video, sampling)
    except VideoError:
        return []
    near = min((s.retain for s in settings if s.method != BASELINE), key=lambda r: abs(r - _NEAR), default=0)
    found = []
    for setting in [s for s in settings if s.retain == near][:_MOST]:
        ready = engine.with_prune(setting.config)
        answer = ready.answer(ready.encode([frames], survivors=True), [sample.question])[0]
        image = list(pictures(clear, answer.trace))[len(frames) // 2]
        data = io.BytesIO()
        matplotlib.image.imsave(data, image, format="png")
        png = base64.b64encode(data.getvalue()).decode()
        found.append({"method": setting.label, "title": sample.question, "png_base64": png})
    return found


def _of_video(values: Tensor, frames: int) -> NDArray:
    """(F, n) -> (T, n)"""
    seen = values.shape[0]
    return values[torch.arange(frames) // -(-frames // seen)].numpy()


def _tiles(frames: VideoFrames) -> Iterator[Image]:
    """Frames with a longer side of `_TILE` pixels."""
    height, width = frames.pixels.shape[1:3]
    factor = _TILE / max(height, width)
    size = (max(2, round(height * factor)), max(2, round(width * factor)))
    for one in frames.pixels.split(1):
        yield resized(one, size)[0].numpy()
