"""Whole frames of a clip merge between the blocks of an encoder, for a method that chooses at its end (EarlyTom).

Shapes: F frames of all clips, T frames of a clip, L frames left, P prefix tokens, U units of all frames, u patches of a
unit, N packed tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from videoprune.plug.packing import PackedUnits
from videoprune.prune.merge import apply_plan, compose, concatenate, gather, identity_plan, unmerge
from videoprune.prune.registry import OVER_CLIP, FrameMerging
from videoprune.types import KeepPlan

if TYPE_CHECKING:
    from videoprune.plug.encoder_pass import EncoderPass


class FrameMerges:
    """What became of the frames of one `EncoderPass`.

    blocks: those behind which frames merge. clips: frames left of each clip. attention: (units left,), what each unit
    received in the last of the blocks, merged as its frame was; None before. segments: (L,) the segment of each frame
    that is left, known then too.
    """

    def __init__(self, run: EncoderPass, merging: FrameMerging) -> None:
        self.run, self.merging = run, merging
        self.blocks = frozenset(merging.blocks(run.goal.blocks))
        self.last = max(self.blocks)
        self.clips = list(run.clips)
        self.plan: KeepPlan | None = None  # one row, from the dense frames to those left
        self.attention: Tensor | None = None
        self.segments: tuple[int, ...] | None = None

    @classmethod
    def of(cls, run: EncoderPass) -> FrameMerges | None:
        """None where the pass merges no frames."""
        merging = OVER_CLIP[run.config.method].merging if run.end.chooses else None
        return None if merging is None else cls(run, merging)

    def merge(self, block: int, xs: Sequence[Tensor], extra: Sequence[Tensor]) -> list[Tensor]:
        """Packed xs (N, D) and rows of their tokens (N, ...) behind `block`; the first of xs decides."""
        run = self.run
        old = run.rows
        fronts, parts = zip(*(old.split(x) for x in xs), strict=True)
        with torch.no_grad():
            frames = self._plan(parts[0])
            step, lengths = over_units(frames, old.units.lengths)
            if block == self.last:
                self._keep_attention(step)
        rows = PackedUnits(lengths, unit=run.unit, prefix=old.prefix)
        left = [
            rows.join(_merged_prefix(front, frames), apply_plan(units[None], step)[0])
            for front, units in zip(fronts, parts, strict=True)
        ]
        narrowed = [rows.join(None, gather(old.split(e)[1][None], step)[0]) for e in extra]
        self.plan = frames if self.plan is None else compose(self.plan, frames)
        run._pass_on(step, rows)
        if block == self.last:
            self.segments = self._segments(rows.split(left[0])[1])
        return [*left, *narrowed]

    def _by_clip(self, units: Tensor) -> list[Tensor]:
        """Units (U, u, D) -> one (T, patches of a frame, D) for each clip."""
        lengths = self.run.rows.units.lengths
        ends = list(accumulate(self.clips))
        sizes = [lengths[end - n : end] for n, end in zip(self.clips, ends, strict=True)]
        for one in sizes:
            if len(set(one)) > 1:
                raise ValueError(f"frames of {sorted(set(one))} tokens in one clip; allowed: one size")
        parts = units.split([sum(one) for one in sizes])
        return [p.flatten(0, 1).unflatten(0, (n, -1)) for p, n in zip(parts, self.clips, strict=True)]

    def _plan(self, units: Tensor) -> KeepPlan:
        """Frames of all clips, each clip for itself; `self.clips` becomes what is left."""
        plans = [self.merging.plan(x) for x in self._by_clip(units)]
        self.clips = [plan.num_kept for plan in plans]
        return concatenate(plans)

    def _segments(self, units: Tensor) -> tuple[int, ...]:
        with torch.no_grad():
            return tuple(s for x in self._by_clip(units) for s in self.merging.segments(x))

    def _keep_attention(self, step: KeepPlan) -> None:
        run = self.run
        assert run.heads is not None
        received = [run.importance(g, *run.heads) for g in range(len(run.rows.units.groups))]
        self.attention = apply_plan(run.rows.units.join(received)[None], step)[0]

    def dense_prefix(self, front: Tensor) -> Tensor:
        """Prefix rows of the frames left (L, P, D) at the places of all frames (F, P, D), 0 where a frame is gone."""
        return front if self.plan is None else unmerge(front[None], self.plan, fill=0.0)[0]

    def places(self, device: torch.device) -> Tensor:
        """(L,): which of all frames each one left stands for."""
        plan = self.plan if self.plan is not None else identity_plan(1, sum(self.run.clips), device)
        return plan.keep[0]


def over_units(frames: KeepPlan, lengths: Sequence[int]) -> tuple[KeepPlan, list[int]]:
    """A plan over F frames of `lengths` units each -> the plan over all their units, and the lengths that are left.

    Frames that merge have as many units as the one that they merge into.
    """
    device = frames.keep.device
    count = torch.tensor(lengths, device=device)
    frame = torch.repeat_interleave(torch.arange(len(lengths), device=device), count)  # (U,)
    within = torch.arange(len(frame), device=device) - (count.cumsum(0) - count)[frame]
    left = count[frames.keep[0]]
    start = left.cumsum(0) - left  # of each frame left
    target = frames.into[0][frame]
    own = torch.zeros_like(count, dtype=torch.bool).index_fill(0, frames.keep[0], True)
    into = (start[target.clamp(min=0)] + within).where(target >= 0, -1)
    weight = None if frames.weight is None else frames.weight[:, frame]
    return KeepPlan(own[frame].nonzero().T, into[None], weight), left.tolist()


def _merged_prefix(front: Tensor | None, frames: KeepPlan) -> Tensor | None:
    """Prefix rows (F, P, D) merge as their frames do."""
    return None if front is None else apply_plan(front[None], frames)[0]
