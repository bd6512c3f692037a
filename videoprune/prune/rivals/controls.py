"""Controls that never look at a token, for a whole clip: fewer frames, lower resolution.

Shapes: T frames, n tokens of a frame, N = T * n.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from videoprune.prune.controls import evenly_spaced, uniform_grid_plan, uniform_plan
from videoprune.prune.rivals.choose import even_counts
from videoprune.prune.rivals.tokens import ClipTokens, in_clip, over_clip, plan_of
from videoprune.types import KeepPlan


@over_clip("control: fewer frames")
def frames(clip: ClipTokens, keep: int, *, generator: torch.Generator | None = None) -> KeepPlan:
    """Fewer frames: evenly spaced frames, all whole but the last, which is thinned evenly to the exact count."""
    wanted = evenly_spaced(clip.frames, -(-keep // clip.per_frame))
    counts = [clip.per_frame if t in wanted else 0 for t in range(clip.frames)]
    counts[wanted[-1]] -= len(wanted) * clip.per_frame - keep
    return _by_count(clip, counts, lambda count: _spread(clip, count))


@over_clip("control: lower resolution by average pooling")
def pool(clip: ClipTokens, keep: int, *, generator: torch.Generator | None = None) -> KeepPlan:
    """Lower resolution: each frame's grid is cut in an even share of `keep` rectangles, each is averaged.

    Bands of rows of nearly equal height, each cut in nearly equal pieces; where the count is no product, some
    bands have one piece more. Without a grid, stretches of the order. A frame that gets none is dropped.
    """
    rows, columns = clip.grid or (1, clip.per_frame)
    counts = even_counts(keep, clip.frames)
    return _by_count(clip, counts, lambda count: torch.tensor(_rectangles(rows, columns, count)))


def _by_count(clip: ClipTokens, counts: list[int], make: Callable[[int], Tensor]) -> KeepPlan:
    """make(count): targets within a frame (n,). The frames differ only in their counts, few distinct ones."""
    made = {count: make(count).to(clip.x.device) for count in set(counts)}
    return plan_of(in_clip(torch.stack([made[count] for count in counts])))


def _spread(clip: ClipTokens, count: int) -> Tensor:
    """Targets (n,) that keep `count` evenly spread tokens of a frame."""
    plan = uniform_plan(1, clip.per_frame, count)
    if clip.grid is not None:
        plan = uniform_grid_plan(1, *clip.grid, count)
    own = torch.arange(clip.per_frame)
    return own.where(plan.into[0] >= 0, -1)


def _rectangles(rows: int, columns: int, count: int) -> list[int]:
    """Targets of a grid's cells, row by row: the middle cell of each one's rectangle. -1 if count is 0."""
    target = [-1] * (rows * columns)
    if count == 0:
        return target
    wanted = round(math.sqrt(count * rows / columns))
    bands = min(max(wanted, math.ceil(count / columns), 1), rows, count)
    base, more = divmod(count, bands)
    longer = set(evenly_spaced(bands, more))
    for band, (top, bottom) in enumerate(_stretches(rows, bands)):
        for left, right in _stretches(columns, base + (band in longer)):
            middle = (top + bottom - 1) // 2 * columns + (left + right - 1) // 2
            for row in range(top, bottom):
                target[row * columns + left : row * columns + right] = [middle] * (right - left)
    return target


def _stretches(length: int, count: int) -> list[tuple[int, int]]:
    """0..length cut in `count` nearly equal stretches (start, end)."""
    bounds = [i * length // count for i in range(count + 1)]
    return list(pairwise(bounds))
