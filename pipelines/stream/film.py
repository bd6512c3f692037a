"""A film of MovingShapes for the demo: one clip after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from videoprune.eval.benchmarks.moving_shapes.make import clip_frames
from videoprune.eval.benchmarks.moving_shapes.plan import plan_clip
from videoprune.video.write import write_mp4

_RATE = 4  # frames a second


def write_film(path: Path, *, clips: int = 12, size: int = 224, seed: int = 7) -> None:
    """Clips of a seed that no table was measured on: some two minutes."""

    def frames() -> Iterator[NDArray[np.uint8]]:
        for index in range(clips):
            for chunk in clip_frames(plan_clip(index, seed).scene, size, _RATE):
                yield from chunk

    write_mp4(frames(), path, rate=_RATE)
