"""The measuring harness: variants take turns in one process on the same inputs, warmed up, and what their runs say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeVar

Item = TypeVar("Item")
WARM_UP_TOKENS = (
    3  # a fault of a decoding step shows only where there is one: the first token is the prefill's
)
_LONGEST = 300  # letters of a reason


@dataclass(frozen=True)
class Turn:
    """One timed call. number: from 0 on, the same for the calls of one round. value: what the call returned; None where
    it was refused, with the reason."""

    label: str
    number: int
    value: Any = None
    reason: str = ""


def take_turns(
    labels: Sequence[str],
    once: Callable[[str, int], Any],
    *,
    runs: int,
    warmup: int = 1,
    refusals: tuple[type[Exception], ...] = (),
    over: Callable[[], bool] = lambda: False,
) -> Iterator[Turn]:
    """`once(label, number)` for every label in every round, `warmup` of them with negative numbers, which give no Turn.

    A label that raises one of `refusals` gives a Turn with the reason, and has no more. In a warm-up `once` must take
    at least `WARM_UP_TOKENS`. over: asked after every timed round whether the time is spent.
    """
    left = list(labels)
    for number in range(-warmup, runs):
        for label in rotated(left, number):
            value, reason = None, ""
            try:
                value = once(label, number)
            except refusals as error:
                reason = explained(error)
            if reason:  # outside of `except`, whose traceback holds the tensors
                left.remove(label)
            if reason or number >= 0:
                yield Turn(label, number, value, reason)
        if number >= 0 and over():
            return


def rotated(items: Sequence[Item], by: int) -> list[Item]:
    """Another one first each turn, so that none is always timed after the same."""
    start = by % len(items) if items else 0
    return [*items[start:], *items[:start]]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest of one figure's runs."""
    return {"median": median(values), "low": min(values), "high": max(values)}


def explained(error: Exception) -> str:
    """Type and first line of an error, cut where it gets long."""
    text = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {text}"[:_LONGEST]
