"""Frames of a MovingShapes stream, drawn when they are wanted: an hour is never held.

Shapes: C frames of a chunk, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from videoprune.eval.benchmarks.moving_shapes.make import clip_frames, write_chunks
from videoprune.eval.benchmarks.moving_stream.scene import Stream


def stream_frames(
    stream: Stream, size: int, fps: int, *, since: float = 0.0, until: float | None = None
) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Seconds and uint8 (S, S, 3) RGB of each frame from `since` to before `until`, in order, one shot at a time.

    Frame i is that at i / fps seconds, whatever `since` is. Raises ValueError for a rate that is no whole number.
    """
    if fps < 1 or fps != int(fps):
        raise ValueError(f"fps={fps}; allowed: whole numbers from 1 on, so that cuts fall on frames")
    end = stream.duration if until is None else min(until, stream.duration)
    for start, shot in zip(stream.starts, stream.shots, strict=True):
        if start + shot.duration <= since:
            continue
        if start >= end:
            return
        number = 0
        for chunk in clip_frames(shot, size, fps):
            for frame in chunk:
                t = start + number / fps
                number += 1
                if since <= t < end:
                    yield t, frame


def write_stream(stream: Stream, path: Path, *, size: int, fps: int) -> None:
    """Encode it as H.264 in `path` (mp4), in the memory of a shot. The file appears whole or not at all."""
    frames = (frame[None] for _, frame in stream_frames(stream, size, fps))  # (1, S, S, 3)
    write_chunks(frames, path, size=size, fps=fps)
