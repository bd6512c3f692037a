"""The points that no other beats."""

from __future__ import annotations

import math
from collections.abc import Sequence


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which of `points` (cost, value) no other beats, by ascending cost: indices.

    A point is beaten by one that costs no more and is worth no less, and better in one of both. Equal points are
    all kept. Raises ValueError for a number that is none.
    """
    if any(math.isnan(x) for p in points for x in p):
        raise ValueError("points: NaN; allowed: numbers")
    front: list[int] = []
    best = -math.inf
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        cost, value = points[i]
        same = bool(front) and points[front[-1]] == (cost, value)
        if value > best or same:
            front.append(i)
            best = max(best, value)
    return front
