"""Frames compared with each other inside an encoder: budgets by novelty, and merges into the frame before.

Shapes: T frames of a clip, U units of a frame, D width.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from videoprune.plug.packing import PackedUnits
from videoprune.prune.budget import allocate
from videoprune.prune.counts import kept_of_clip
from videoprune.prune.merge import concatenate
from videoprune.prune.registry import INSIDE
from videoprune.prune.temporal import frame_counts, novelty, still_counts, stillness, temporal_plan
from videoprune.types import KeepPlan

if TYPE_CHECKING:
    from videoprune.plug.encoder_pass import EncoderPass


def merge_over_time(run: EncoderPass, x: Tensor) -> tuple[KeepPlan, PackedUnits]:
    """The step over all units x (sum of units, D) of all frames, and the rows after it. It sets what each frame must
    reach at the end, `run.final`. Raises ValueError for a clip whose frames differ in size."""
    plans, final, lengths, place = [], list[int](), list[int](), 0
    for first, frames in run.starts():
        counts = run.dense[first : first + frames]
        if len(set(counts)) > 1:
            raise ValueError(f"frames of {sorted(set(counts))} tokens in one clip; allowed: one size")
        still = stillness(x[place : place + sum(counts)].unflatten(0, (frames, -1)))  # (T, U)
        left, ends = _budgets(run, still)
        plans.append(temporal_plan(still, [counts[0] - n for n in left]))
        final, lengths = final + ends, lengths + left
        place += sum(counts)
    run.final = final
    return concatenate(plans), run.rows.changed(lengths, final)


def _budgets(run: EncoderPass, still: Tensor) -> tuple[list[int], list[int]]:
    """One clip's stillness (T, U): how many units each frame has after merging over time, and at the end."""
    frames, units = still.shape
    config, blocks = run.config, run.goal.blocks - (run.compared or 0) - 1
    total = kept_of_clip(frames, units, run.goal.keep)
    smallest = partial(INSIDE[config.method].smallest, config, blocks)
    if config.frames == "novelty":
        least = min(smallest(units), total // frames)
        return [units] * frames, list(frame_counts(novelty(still).tolist(), total, units, minimum=least))
    over_time = round(config.temporal * (frames * units - total))
    left = [units - n for n in still_counts(still, over_time, config.still)]
    lowest = [smallest(n) for n in left]  # what the blocks that follow can reach
    if sum(lowest) > total:
        lowest = [min(n, total // frames) for n in lowest]
    room = [n - m for n, m in zip(left, lowest, strict=True)]
    more = allocate(total - sum(lowest), left, room, minimum=0)
    return left, [m + n for m, n in zip(lowest, more, strict=True)]
