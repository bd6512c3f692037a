"""Time on whatever device the work is on: CUDA events on a GPU, the wall clock elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

Mark = float | torch.cuda.Event  # a moment: seconds of the wall clock, or a place in the GPU's queue


def now(device: torch.device | str) -> float:
    """Seconds on the wall clock, after all that the device was given is done."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def mark(device: torch.device) -> Mark:
    """This moment of the work on `device`. On a GPU nothing waits for it."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def seconds_between(first: Mark, last: Mark) -> float:
    """Seconds from one mark to another of the same device; on a GPU after the work before `last` is done."""
    if isinstance(first, float):
        assert isinstance(last, float), "marks of two devices"
        return last - first
    assert not isinstance(last, float), "marks of two devices"
    last.synchronize()
    return first.elapsed_time(last) / 1000


class Stopwatch:
    """Adds up the time of stretches of work. On a GPU nothing waits before `seconds` is read."""

    def __init__(self) -> None:
        self._stretches: list[tuple[Mark, Mark]] = []

    @contextmanager
    def on(self, device: torch.device) -> Iterator[None]:
        """Time what happens within, on tensors of `device`."""
        first = mark(device)
        yield
        self._stretches.append((first, mark(device)))

    def add(self, other: Stopwatch) -> None:
        """Count what another stopwatch has timed too."""
        self._stretches += other._stretches

    @property
    def seconds(self) -> float:
        return sum(seconds_between(first, last) for first, last in self._stretches)
