"""Time on whatever device the work is on: CUDA events on a GPU, the wall clock elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def now(device: torch.device | str) -> float:
    """Seconds on the wall clock, after all that the device was given is done."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Stopwatch:
    """Adds up the time of stretches of work. On a GPU nothing waits before `seconds` is read."""

    def __init__(self) -> None:
        self._wall = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def on(self, device: torch.device) -> Iterator[None]:
        """Time what happens within, on tensors of `device`."""
        if device.type == "cuda":
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            yield
            last.record()
            self._events.append((first, last))
        else:
            started = time.perf_counter()
            yield
            self._wall += time.perf_counter() - started

    @property
    def seconds(self) -> float:
        if self._events:
            self._events[-1][1].synchronize()
        return self._wall + sum(a.elapsed_time(b) for a, b in self._events) / 1000
