"""Waiting for what a source gives, with a deadline that only a failure reaches."""

from __future__ import annotations

import time
from collections.abc import Callable

from videoprune.video.live import LiveFrame, LiveSource

DEADLINE = 60.0


def take_all(source: LiveSource) -> list[LiveFrame]:
    """Every frame until the source ends, as fast as they come."""
    frames, end = [], time.monotonic() + DEADLINE
    while not source.ended:
        assert time.monotonic() < end, source.stats()
        if (frame := source.next(0.2)) is not None:
            frames.append(frame)
    return frames


def take(source: LiveSource, count: int) -> list[LiveFrame]:
    """The next `count` frames."""
    frames: list[LiveFrame] = []
    end = time.monotonic() + DEADLINE
    while len(frames) < count:
        assert time.monotonic() < end, source.stats()
        assert not source.ended, source.stats()
        if (frame := source.next(0.2)) is not None:
            frames.append(frame)
    return frames


def wait_until(source: LiveSource, true: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while not true():
        assert time.monotonic() < end, source.stats()
        time.sleep(0.01)
