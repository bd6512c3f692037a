"""Variants measured in turn: in which order, and what is told of their runs."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TypeVar

Item = TypeVar("Item")


def rotated(items: Sequence[Item], by: int) -> list[Item]:
    """Another one first each turn, so that none is always timed after the same."""
    start = by % len(items) if items else 0
    return [*items[start:], *items[:start]]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest of one figure's runs."""
    return {"median": median(values), "low": min(values), "high": max(values)}
