"""Frames compared with each other inside an encoder: budgets by novelty, and merges into the frame before.

Shapes: T frames of a clip, U units of a frame, D width.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor

from videoprune.config import EncoderPrune
from videoprune.plug.packing import PackedUnits
from videoprune.prune.budget import allocate
from videoprune.prune.counts import kept_of_clip
from videoprune.prune.merge import concatenate
from videoprune.prune.registry import INSIDE
from videoprune.prune.temporal import frame_counts, novelty, temporal_plan
from videoprune.types import KeepPlan

if TYPE_CHECKING:
    from videoprune.plug.encoder_pass import EncoderPass

# Tokens merge over time after this share of the blocks; budgets alone are made after the first block.
_DEPTH = 0.25


def comparing_block(config: EncoderPrune, keep: float, blocks: int) -> int | None:
    """The block after which frames are compared with each other; None: never."""
    method = INSIDE.get(config.method)
    wanted = config.temporal or config.frames == "novelty"
    if method is None or not method.by_content or keep == 1 or not wanted:
        return None
    return math.floor(_DEPTH * blocks) if config.temporal else 0


def merge_over_time(run: EncoderPass, x: Tensor) -> tuple[KeepPlan, PackedUnits]:
    """The step over all units x (sum of units, D) of all frames, and the rows after it. It sets what each frame must
    reach at the end, `run.final`. Raises ValueError for a clip whose frames differ in size."""
    plans, final, lengths, place = [], list[int](), list[int](), 0
    for first, frames in run.starts():
        counts = run.dense[first : first + frames]
        if len(set(counts)) > 1:
            raise ValueError(f"frames of {sorted(set(counts))} tokens in one clip; allowed: one size")
        u = x[place : place + sum(counts)].unflatten(0, (frames, -1))  # (T, U, D)
        left, ends = _budgets(run, u)
        plans.append(temporal_plan(u, [counts[0] - n for n in left]))
        final, lengths = final + ends, lengths + left
        place += sum(counts)
    run.final = final
    return concatenate(plans), run.rows.changed(lengths, final)


def _budgets(run: EncoderPass, u: Tensor) -> tuple[list[int], list[int]]:
    """Units u (T, U, D) of one clip: how many each frame has after merging over time, and at the end."""
    frames, units = u.shape[:2]
    config = run.config
    total = kept_of_clip(frames, units, run.goal.keep)
    weights = novelty(u).tolist() if config.frames == "novelty" else [1.0] * frames
    over_time = round(config.temporal * (frames * units - total)) if frames > 1 else 0
    if not over_time:
        blocks = run.goal.blocks - (run.compared or 0) - 1
        least = min(INSIDE[config.method].smallest(config, blocks, units), total // frames)
        return [units] * frames, list(frame_counts(weights, total, units, minimum=least))
    rest = (frames - 1) * units - min(over_time, (frames - 1) * (units - 1))
    left = [units, *frame_counts(weights[1:], rest, units)]
    return left, list(allocate(total, left, left))
