"""One pass of a stock vision encoder in which tokens merge or leave between its blocks.

A family's adapter says where frames and units lie; the rest is here. A unit is what becomes one token of the LLM:
a patch, or the 2 x 2 patches (InternVL, Qwen-VL; 3 x 3 or 4 x 4 in SmolVLM) that the model joins behind the encoder.
Whole units merge, patch by patch, so every survivor is a valid one.

Shapes: F frames, P prefix tokens (CLS), U units of a frame, u patches of a unit, K units kept, D width, H heads,
d head width, N = F * (P + U * u) packed tokens.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from videoprune.config import EncoderPrune
from videoprune.models.frames import FrameRows, attend
from videoprune.prune.budget import meteor_counts
from videoprune.prune.controls import random_plan, uniform_plan
from videoprune.prune.evoprune import bipartite_plan
from videoprune.prune.importance import attention_received, cls_attention
from videoprune.prune.merge import apply_plan, compose, gather, identity_plan, merged_size, unmerge
from videoprune.prune.meteor import stage1_plan
from videoprune.prune.schedule import merge_counts
from videoprune.types import KeepPlan

_CUTS = 3  # METEOR prunes at the end of each third of the depth


def kept_units(units: int, keep: float) -> int:
    """Units of a frame that leave the encoder: exact, and known before any pixel."""
    return min(units, max(1, round(keep * units)))


def removals(config: EncoderPrune, num_blocks: int, units: int, keep: float) -> tuple[int, ...]:
    """Units to remove after each of the `num_blocks` blocks that the LLM's features come from."""
    final = kept_units(units, keep)
    if config.method == "evoprune":
        return merge_counts(num_blocks, units, final, config.schedule)
    removed = [0] * num_blocks
    if config.method == "meteor":
        before = units
        for cut, after in enumerate(meteor_counts(units, final, _CUTS)):
            removed[math.ceil(num_blocks * (cut + 1) / _CUTS) - 1] += before - after
            before = after
    return tuple(removed)


class VisionRun:
    """State of one pass: what each unit has become, and how blocks attend now. Made anew for every pass."""

    def __init__(
        self,
        config: EncoderPrune,
        keep: float,
        num_blocks: int,
        lengths: Sequence[int],
        *,
        unit: int,
        prefix: int,
        seed: int,
        windows: Sequence[int] | None = None,
    ) -> None:
        """lengths: packed tokens of each frame, prefix included. windows: packed tokens of each attention window,
        for the blocks that attend in windows (Qwen2.5-VL)."""
        self.config, self.unit, self.prefix = config, unit, prefix
        self.rows = FrameRows(lengths)
        self.last_block = num_blocks - 1
        self.seconds = 0.0
        self.generator = torch.Generator().manual_seed(seed)
        self.dense = [(n - prefix) // unit for n in lengths]
        group_units = [self.dense[g[0]] for g in self.rows.groups]
        self.final = [kept_units(n, keep) for n in group_units]
        self.remove = [removals(config, num_blocks, n, keep) for n in group_units]
        self.plans: list[KeepPlan] | None = None  # by group, over units, from dense to now
        self.size: Tensor | None = None  # (N,) patches that each token stands for, None: one each
        self.window: Tensor | None = None  # (N,) window of each token
        if windows is not None:
            self.window = torch.repeat_interleave(torch.arange(len(windows)), torch.tensor(windows))
        self.wanted = {i for row in self.remove for i, r in enumerate(row) if r}
        self.heads: tuple[Tensor, Tensor, float] | None = None  # queries, keys (H, N, d) of the last block
        self.grid: tuple[int, int] | None = None  # units of a frame in rows and columns, None: a square
        self.order: Tensor | None = (
            None  # (all units,) the place in its rows that each unit comes from, None: its own
        )

    def attend(self, block: int, q: Tensor, k: Tensor, v: Tensor, scale: float, **how: bool) -> Tensor:
        """Attention of one block on packed (H, N, d), within frames or windows, in proportion to size."""
        if block in self.wanted:
            self.heads = (q, k, scale)
        windowed = how.pop("windowed")
        bias = None
        if self.size is not None and self.config.proportional_attention:
            bias = self.size.log()
        return attend(q, k, v, self.stretches(windowed), scale=scale, bias=bias, eager=how["eager"])

    def stretches(self, windowed: bool) -> Sequence[int]:
        """Lengths of the stretches that attend to themselves now; windows that lost all tokens are gone."""
        if not windowed or self.window is None:
            return self.rows.lengths
        return torch.unique_consecutive(self.window, return_counts=True)[1].tolist()

    def after(self, block: int, x: Tensor, extra: Sequence[Tensor] = ()) -> tuple[Tensor, list[Tensor]]:
        """Shorten packed x (N, D), and rows that belong to its tokens (N, ...), as the schedule wants it."""
        if block not in self.wanted:
            return x, list(extra)
        started = time.perf_counter()
        self.wanted.discard(block)
        size = x.new_ones(x.shape[0], dtype=torch.float32) if self.size is None else self.size
        parts, sizes, steps = [], [], []
        for g, (one, weight) in enumerate(zip(self.rows.split(x), self.rows.split(size), strict=True)):
            step = self._plan(g, block, one)
            steps.append(step)
            units = self._units(one)
            w = self._units(weight[..., None])[..., 0, 0]  # (F, U): the patches of a unit share one size
            merged = apply_plan(units.flatten(2), step, w).unflatten(2, units.shape[2:])
            parts.append(self._with_prefix(one, merged))
            new = merged_size(w, step).repeat_interleave(self.unit, 1)
            sizes.append(torch.cat([weight[:, : self.prefix], new], 1))
        narrowed = [self._narrow(e, steps) for e in extra]
        if self.window is not None:
            self.window = self._narrow(self.window.to(x.device), steps)
        before = self.plans or [identity_plan(s.into.shape[0], s.into.shape[1], x.device) for s in steps]
        self.plans = [compose(a, b) for a, b in zip(before, steps, strict=True)]
        x, self.size = self.rows.join(parts), self.rows.join(sizes)
        self.rows = self.rows.changed([part.shape[1] for part in parts])
        self.heads = None
        self.seconds += time.perf_counter() - started
        return x, narrowed

    def _plan(self, group: int, block: int, x: Tensor) -> KeepPlan:
        """The step for one group's tokens x (F, P + U*u, D), over units."""
        frames, units = x.shape[0], (x.shape[1] - self.prefix) // self.unit
        remove = self.remove[group][block]
        if not remove:
            return identity_plan(frames, units, x.device)
        assert self.heads is not None
        q, k, scale = self.heads
        q, k = (self.rows.split(t.transpose(0, 1))[group].transpose(1, 2) for t in (q, k))  # (F, H, n, d)
        if self.config.method == "meteor":
            first = block == min(i for i, r in enumerate(self.remove[group]) if r)
            attention = None if first else self._importance(group, q, k, scale)
            return stage1_plan(self._of_units(x), units - remove, attention=attention)
        critical = math.floor(self.config.critical_ratio * units)
        importance = None
        if critical or self.config.lambda_att:
            importance = self._importance(group, q, k, scale)
        metric = k.mean(1) if self.config.metric == "keys" else x
        return bipartite_plan(
            self._of_units(metric),
            remove,
            importance=importance,
            lambda_div=self.config.lambda_div,
            lambda_att=self.config.lambda_att,
            critical=critical,
            neighbors=self.config.neighbors,
        )

    def _importance(self, group: int, q: Tensor, k: Tensor, scale: float) -> Tensor:
        """Attention to each unit, (F, U), scaled so that 1 is the average at every depth."""
        bias = None
        if self.size is not None and self.config.proportional_attention:
            bias = self.rows.split(self.size)[group].log()
        if self.prefix:
            a = cls_attention(q, k, scale=scale, num_prefix=self.prefix, bias=bias)
        else:
            a = attention_received(q, k, scale=scale, bias=bias)
        return a.unflatten(1, (-1, self.unit)).mean(2) * a.shape[1]

    def finish(self, device: torch.device) -> list[KeepPlan]:
        """The plan from the dense units to those that leave, by group; the controls choose here."""
        if self.plans is None:
            sizes = zip(self.rows.groups, self.final, strict=True)
            groups = [(len(g), self.dense[g[0]], k) for g, k in sizes]
            if self.config.method == "random":
                self.plans = [random_plan(*g, generator=self.generator, device=device) for g in groups]
            elif self.config.method == "uniform":
                self.plans = [uniform_plan(*g, device=device) for g in groups]
            else:
                self.plans = [identity_plan(f, n, device) for f, n, _ in groups]
        return self.plans

    def left(self, device: torch.device) -> Tensor:
        """Which of all dense units left the encoder: bool (all units,)."""
        plans = self.finish(device)
        marks = [
            torch.zeros(p.into.shape, dtype=torch.bool, device=device).scatter(1, p.keep, True) for p in plans
        ]
        return self.rows.join(marks)

    def expand(self, units: Tensor, *, fill: float | None) -> Tensor:
        """Packed rows of the units that left, (M, ...), back at their dense places: (all units, ...).

        fill: what dropped and merged places hold; None: each merged unit gets its survivor's value.
        """
        plans = self.finish(units.device)
        if self.size is None:  # nothing left on the way: the controls, or every unit kept
            if fill is None or all(p.num_kept == p.num_tokens for p in plans):
                return units
            return units.masked_fill(~self.left(units.device).view(-1, *[1] * (units.ndim - 1)), fill)
        kept = self.rows.changed([p.num_kept for p in plans])
        places = plans if fill is None else [_own_places(p) for p in plans]
        parts = zip(kept.split(units), places, strict=True)
        return self.rows.join([unmerge(part, place, fill=fill or 0.0) for part, place in parts])

    def _units(self, x: Tensor) -> Tensor:
        """(F, P + U*u, D) -> (F, U, u, D)."""
        return x[:, self.prefix :].unflatten(1, (-1, self.unit))

    def _of_units(self, x: Tensor) -> Tensor:
        """Means over the patches of each unit: (F, P + U*u, D) -> (F, U, D)."""
        return x[:, self.prefix :] if self.unit == 1 else self._units(x).mean(2)

    def _with_prefix(self, before: Tensor, units: Tensor) -> Tensor:
        """The prefix of (F, P + ..., ...) before units (F, K, u, ...)."""
        body = units.flatten(1, 2)
        return body if self.prefix == 0 else torch.cat([before[:, : self.prefix], body], 1)

    def _narrow(self, x: Tensor, steps: Sequence[KeepPlan]) -> Tensor:
        """Rows (N, ...) of the survivors."""
        parts = []
        for one, step in zip(self.rows.split(x), steps, strict=True):
            body = gather(one[:, self.prefix :].unflatten(1, (-1, self.unit)), step)
            parts.append(self._with_prefix(one, body))
        return self.rows.join(parts)


def _own_places(plan: KeepPlan) -> KeepPlan:
    """The plan as if it merged nothing: only the survivors' own places hold something."""
    every = torch.arange(plan.num_kept, device=plan.keep.device).expand_as(plan.keep)
    return KeepPlan(plan.keep, torch.full_like(plan.into, -1).scatter(1, plan.keep, every))
