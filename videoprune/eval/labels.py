"""Labels that do not cover each other. Plain geometry, all lengths in one unit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise, product

Box = tuple[float, float, float, float]  # left, bottom, right, top

_DIRECTIONS = tuple(k * math.pi / 8 for k in (0, 8, 2, 14, 6, 10, 4, 12, 1, 15, 7, 9, 3, 13, 5, 11))
_RINGS = (1.0, 1.8, 2.8, 4.0, 5.5, 7.5, 10.0, 13.0, 17.0)


def place_labels(
    anchors: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    bounds: Box,
    *,
    radius: float,
    lines: Sequence[Sequence[tuple[float, float]]] = (),
) -> list[Box]:
    """A box of each size near its anchor, within bounds, over no other box, no anchor and no vertex of `lines`.

    radius: of what is drawn at an anchor, and the distance of a label that has room. The nearest free place of 16
    directions wins; where none is free, the one with the least overlap.
    """
    marks = [_around(x, y, radius) for x, y in anchors]
    marks += [_around(x, y, radius / 4) for line in lines for x, y in _along(line, radius)]
    taken: list[Box] = []
    found: dict[int, Box] = {}
    # The crowded choose last: the others need little room.
    crowd = [sum(math.dist(a, b) < 12 * radius for b in anchors) for a in anchors]
    for i in sorted(range(len(anchors)), key=lambda i: (crowd[i], i)):
        chosen, least = None, math.inf
        for ring, turn in product(_RINGS, _DIRECTIONS):
            box = _beside(anchors[i], sizes[i], radius * ring, turn)
            cost = _cost(box, anchors[i], radius, taken, marks, bounds)
            if cost < least:  # the first of equals is the nearest
                chosen, least = box, cost
            if least == 0:
                break
        assert chosen is not None
        taken.append(chosen)
        marks += _leader(chosen, anchors[i], radius)
        found[i] = chosen
    return [found[i] for i in range(len(anchors))]


def nearest(box: Box, anchor: tuple[float, float]) -> tuple[float, float]:
    """The point of `box` next to `anchor`."""
    return min(max(anchor[0], box[0]), box[2]), min(max(anchor[1], box[1]), box[3])


def overlap(a: Box, b: Box) -> float:
    """Area that two boxes share."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, width) * max(0.0, height)


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places as near to `wanted` as can be, at least `gap` apart, in the same order, between low and high.

    Where there is not enough room the gap shrinks.
    """
    if not wanted:
        return []
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    gap = min(gap, (high - low) / max(1, len(wanted) - 1))
    clusters: list[list[float]] = []  # each: mean of (place - own offset), count
    for rank, i in enumerate(order):
        clusters.append([wanted[i] - rank * gap, 1])
        while len(clusters) > 1 and clusters[-2][0] > clusters[-1][0]:
            (a, n), (b, m) = clusters[-2:]
            clusters[-2:] = [[(a * n + b * m) / (n + m), n + m]]
    starts = [start for start, count in clusters for _ in range(int(count))]
    last = high - (len(wanted) - 1) * gap
    places = [0.0] * len(wanted)
    for rank, i in enumerate(order):
        places[i] = min(max(starts[rank], low), last) + rank * gap
    return places


def _cost(
    box: Box,
    anchor: tuple[float, float],
    radius: float,
    taken: Sequence[Box],
    marks: Sequence[Box],
    bounds: Box,
) -> float:
    """What a box covers, how far it leaves the bounds, and what the line to its anchor would cross."""
    outside = (box[2] - box[0]) * (box[3] - box[1]) - overlap(box, bounds)
    covered = 4 * sum(overlap(box, t) for t in taken) + sum(overlap(box, m) for m in marks)
    crossed = sum(overlap(step, t) for step in _leader(box, anchor, radius) for t in taken)
    return round(20 * outside + covered + crossed, 6)  # touching is not covering


def _leader(box: Box, anchor: tuple[float, float], radius: float) -> list[Box]:
    """The line from a label to what it names, in small boxes; none where they are side by side."""
    end = nearest(box, anchor)
    if math.dist(end, anchor) <= 1.5 * radius:
        return []
    return [_around(x, y, radius / 4) for x, y in _along([end, anchor], radius)]


def _beside(anchor: tuple[float, float], size: tuple[float, float], distance: float, angle: float) -> Box:
    """A box whose nearest edge or corner is `distance` away in direction `angle`."""
    (x, y), (w, h) = anchor, size
    cx, cy = x + math.cos(angle) * (distance + w / 2), y + math.sin(angle) * (distance + h / 2)
    return cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2


def _around(x: float, y: float, r: float) -> Box:
    return x - r, y - r, x + r, y + r


def _along(line: Sequence[tuple[float, float]], step: float) -> list[tuple[float, float]]:
    """Points along a broken line, about `step` apart."""
    found: list[tuple[float, float]] = []
    for (x0, y0), (x1, y1) in pairwise(line):
        count = max(1, math.ceil(math.hypot(x1 - x0, y1 - y0) / step))
        found += [(x0 + (x1 - x0) * k / count, y0 + (y1 - y0) * k / count) for k in range(count + 1)]
    return found
