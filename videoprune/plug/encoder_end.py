"""What happens where the encoder ends: controls, rivals that look at a whole clip, and stage 2 of one encoder.

Shapes: F frames, n units of a frame, U units of all frames, M units that left, u patches of a unit, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from videoprune.plug.packing import unit_means
from videoprune.prune.counts import kept_of_clip
from videoprune.prune.fusion import fuse_clips
from videoprune.prune.merge import apply_plan, compose, drop_others, gather, identity_plan
from videoprune.prune.registry import BY_FRAME, OVER_CLIP, ClipTokens
from videoprune.prune.rivals.tokens import plan_of_kept
from videoprune.types import KeepPlan

if TYPE_CHECKING:
    from videoprune.plug.encoder_pass import EncoderPass


class EncoderEnd:
    """The last steps of one `EncoderPass`.

    chooses: a method that looks at whole clips decides here. fuses: what left is pruned once more.
    """

    def __init__(self, run: EncoderPass) -> None:
        self.run, goal = run, run.goal
        method = goal.config.method
        self.chooses = goal.keep < 1 and method in OVER_CLIP
        # Where frames merge on the way, attention is taken there.
        self.needs_heads = (
            self.chooses and bool(OVER_CLIP[method].needs) and OVER_CLIP[method].merging is None
        )
        self.fusing = goal.fusion.keep if goal.fusion.method != "none" else 1.0
        self.fuses = self.fusing < 1
        self.chosen: KeepPlan | None = None
        self.fused: KeepPlan | None = None

    def control(self, device: torch.device) -> KeepPlan:
        """What stays of all units where the choice does not look at them: everything, but for a control."""
        run = self.run
        found = BY_FRAME.get(run.config.method)
        if found is None:
            return identity_plan(1, sum(run.dense), device)
        kept = found.kept(run.dense, run.final, run.layout.grids, generator=run.generator)
        if run.layout.order is not None:  # chosen row by row, before windows changed the order
            kept = kept[run.layout.order.cpu()]
        return plan_of_kept(kept[None].to(device))

    def choose(self, units: Tensor) -> Tensor:
        """A choice among all units (U, u, D) that left the encoder: what survives, merged, (M, u, D)."""
        run = self.run
        if self.chosen is None:
            with torch.no_grad():
                self.chosen = self.over_clips(unit_means(units), *run.last_heads())
            run.plan = self.chosen if run.plan is None else compose(run.plan, self.chosen)
            run.heads = None
        return apply_plan(units[None], self.chosen)[0]

    def over_clips(self, x: Tensor, attention: Tensor | None, keys: Tensor | None) -> KeepPlan:
        """What the method keeps of x (all units, D) of the frames that reach the end. attention, keys: (F, n, ...)."""
        run = self.run
        grid = run.layout.grid if run.layout.order is None else None  # windows change the order
        clips, segments = run.clips, None
        if run.frames is not None:
            clips, segments = run.frames.clips, run.frames.segments
        tokens = ClipTokens(x.unflatten(0, (sum(clips), -1)), attention, keys, grid, segments)
        wanted = [kept_of_clip(n, run.dense[first], run.goal.keep) for first, n in run.starts()]
        keep = [min(count, n * tokens.per_frame) for count, n in zip(wanted, clips, strict=True)]
        return OVER_CLIP[run.config.method].choose(tokens, keep, clips, run.generator)

    def reduce(self, units: Tensor) -> Tensor:
        """What this encoder's end leaves of the units (M, u, D), or (U, u, D) where nothing left on the way."""
        left = self.choose(units) if self.chooses else units
        return self.fuse(left) if self.fuses else left

    def fuse(self, units: Tensor) -> Tensor:
        """Stage 2 on the units (M, u, D) that left, or on all of them before a control's choice is carried out."""
        run = self.run
        if self.fused is None:
            plan, kept = run.finish(units.device), run.kept()
            if units.shape[0] > plan.num_kept:
                units = units[plan.keep[0]]
            frames = [kept[first : first + n] for first, n in run.starts()]
            share = run.goal.keep * self.fusing
            wanted = [kept_of_clip(n, run.dense[first], share) for first, n in run.starts()]
            keep = [min(count, sum(left)) for count, left in zip(wanted, frames, strict=True)]
            with torch.no_grad():
                self.fused = fuse_clips(
                    run.goal.fusion.method, unit_means(units), keep, frames, run.generator
                )
            run.plan = compose(plan, self.fused)
        elif units.shape[0] == sum(run.dense):
            assert run.plan is not None
            return units[run.plan.keep[0]]
        return gather(units[None], self.fused)[0]


def own_places(plan: KeepPlan) -> KeepPlan:
    """The plan as if it merged nothing: only the survivors' own places hold something."""
    return drop_others(plan.keep, plan.num_tokens)
