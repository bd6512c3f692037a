"""One pass of a stock vision encoder in which tokens merge or leave between its blocks.

A family's adapter says where frames and units lie; the rest is here. A unit is what becomes one token of the LLM:
a patch, or the 2 x 2 patches (InternVL, Qwen-VL; 3 x 3 or 4 x 4 in SmolVLM) that the model joins behind the encoder.
Whole units merge, patch by patch, so every survivor is a valid one.

Shapes: F frames, P prefix tokens (CLS), U units of all frames, u patches of a unit, M units that left, D width,
H heads, d head width, N packed tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from videoprune.clock import Stopwatch
from videoprune.config import EncoderPrune, FusionPrune
from videoprune.plug.attention import attend
from videoprune.plug.packing import UnitRows
from videoprune.prune.budget import allocate, meteor_counts
from videoprune.prune.controls import random_plan, uniform_plan
from videoprune.prune.evoprune import bipartite_plan
from videoprune.prune.importance import attention_received, cls_attention
from videoprune.prune.merge import (
    apply_plan,
    compose,
    concatenate,
    gather,
    identity_plan,
    merged_size,
    unmerge,
)
from videoprune.prune.meteor import NUM_CUTS, cut_blocks, stage1_plan
from videoprune.prune.over_clip import choose, fuse_clips, is_clip_method, needs_heads
from videoprune.prune.schedule import merge_counts, smallest_count
from videoprune.prune.temporal import frame_counts, novelty, temporal_plan
from videoprune.types import KeepPlan

# Tokens merge over time after this share of the blocks; budgets alone are made after the first block.
_TEMPORAL_DEPTH = 0.25


def kept_units(units: int, keep: float) -> int:
    """Units of a frame that leave the encoder: exact, and known before any pixel."""
    return min(units, max(1, round(keep * units)))


def kept_of_clip(frames: int, units: int, keep: float) -> int:
    """Units of a whole clip that leave the encoder where one budget spans its frames, at least one a frame."""
    return min(frames * units, max(frames, round(keep * frames * units)))


def removals(config: EncoderPrune, num_blocks: int, units: int, keep: float) -> tuple[int, ...]:
    """Units to remove after each of the `num_blocks` blocks that the LLM's features come from."""
    return _removals(config, num_blocks, units, kept_units(units, keep))


def _removals(config: EncoderPrune, num_blocks: int, units: int, final: int) -> tuple[int, ...]:
    if config.method == "evoprune":
        return merge_counts(num_blocks, units, final, config.schedule)
    removed = [0] * num_blocks
    if config.method == "meteor":
        before = units
        for block, after in zip(cut_blocks(num_blocks), meteor_counts(units, final, NUM_CUTS), strict=True):
            removed[block] += before - after
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
        clips: Sequence[int] | None = None,
        grid: tuple[int, int] | None = None,
        fusion: FusionPrune | None = None,
    ) -> None:
        """lengths: packed tokens of each frame, prefix included. windows: packed tokens of each attention window,
        for the blocks that attend in windows (Qwen2.5-VL). clips: frames of each clip, None: every frame alone.
        grid: rows and columns of a frame's units (of the first one, if they differ). fusion: what leaves the encoder
        is pruned once more, over the clip."""
        self.config, self.grid, self.keep = config, grid, keep
        self.fusion = fusion.method if fusion is not None else "none"
        self.fuse = fusion.keep if fusion is not None and self.fusion != "none" else 1.0
        self.fused: KeepPlan | None = None  # that last step
        # A rival: it looks at all that leaves the encoder.
        self.at_end = keep < 1 and is_clip_method(config.method)
        self.dense = [(n - prefix) // unit for n in lengths]
        self.final = [kept_units(n, keep) for n in self.dense]
        self.clips = list(clips) if clips is not None else [1] * len(lengths)
        assert sum(self.clips) == len(lengths), (self.clips, len(lengths))
        self.num_blocks, self.last_block = num_blocks, num_blocks - 1
        self.clock = Stopwatch()
        self.generator = torch.Generator().manual_seed(seed)
        self.plan: KeepPlan | None = None  # one row, from dense units to now
        self.size: Tensor | None = None  # (N,) patches that each token stands for, None: one each
        self.window: Tensor | None = None  # (N,) window of each token
        if windows is not None:
            self.window = torch.repeat_interleave(torch.arange(len(windows)), torch.tensor(windows))
        self.compared: int | None = None  # the block after which frames are compared with each other
        if config.method == "evoprune" and keep < 1 and (config.temporal or config.frames == "novelty"):
            self.compared = math.floor(_TEMPORAL_DEPTH * num_blocks) if config.temporal else 0
        self.rows = UnitRows(self.dense, unit=unit, prefix=prefix, kinds=self.final)
        self.remove: list[tuple[int, ...]] = []
        self.wanted: set[int] = set()
        if self.compared is None:
            self._schedule(0)
        else:
            self.wanted.add(self.compared)
        if self.at_end and needs_heads(config.method):
            self.wanted.add(self.last_block)
        evo = bool(config.critical_ratio or config.lambda_att) or config.metric == "keys"
        self.looks = config.method != "evoprune" or evo  # whether choosing looks at queries and keys
        self.heads: tuple[Tensor, Tensor, float] | None = None  # queries, keys (H, N, d) of the last block
        # (all units,) the place, row by row, that each unit comes from; None: its own.
        self.order: Tensor | None = None

    @property
    def seconds(self) -> float:
        """Time spent on choosing and merging."""
        return self.clock.seconds

    @property
    def unit(self) -> int:
        return self.rows.unit

    def _schedule(self, start: int) -> None:
        """Removals of each group after the blocks from `start` on."""
        self.remove = []
        for group in self.rows.units.groups:
            now, final = self.rows.units.lengths[group[0]], self.final[group[0]]
            self.remove.append((0,) * start + _removals(self.config, self.num_blocks - start, now, final))
        self.wanted = {i for row in self.remove for i, r in enumerate(row) if r}

    def attend(
        self, block: int, q: Tensor, k: Tensor, v: Tensor, scale: float, *, windowed: bool, kind: str
    ) -> Tensor:
        """Attention of one block on packed (H, N, d), within frames or windows, in proportion to size."""
        if block in self.wanted and self.looks:
            self.heads = (q, k, scale)
        bias = None
        if self.size is not None and self.config.proportional_attention:
            bias = self.size.log()
        return attend(q, k, v, self.stretches(windowed), scale=scale, bias=bias, kind=kind)

    def stretches(self, windowed: bool) -> Sequence[int]:
        """Lengths of the stretches that attend to themselves now; windows that lost all tokens are gone."""
        if not windowed or self.window is None:
            return self.rows.tokens.lengths
        return torch.unique_consecutive(self.window, return_counts=True)[1].tolist()

    def after(self, block: int, x: Tensor, extra: Sequence[Tensor] = ()) -> tuple[Tensor, list[Tensor]]:
        """Shorten packed x (N, D), and rows that belong to its tokens (N, ...), as the schedule wants it."""
        if block not in self.wanted or self.at_end:
            return x, list(extra)
        with self.clock.on(x.device):
            return self._shorten(block, x, extra)

    def _shorten(self, block: int, x: Tensor, extra: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        self.wanted.discard(block)
        front, units = self.rows.split(x)
        if block == self.compared:
            step, rows = self._compare(units)
        else:
            parts = self.rows.units.split(units)
            plans = [self._plan(g, block, one) for g, one in enumerate(parts)]
            step, rows = self.rows.whole(plans), self.rows.after(plans)
        narrowed = [self._narrow(e, step, rows) for e in extra]
        x = rows.join(front, self._merge(units, step, rows))
        if block == self.compared:
            self._schedule(block + 1)
        self.heads = None
        return x, narrowed

    def _merge(self, units: Tensor, step: KeepPlan, rows: UnitRows) -> Tensor:
        """Carry out one step on the units (U, u, D) and on all that is kept by token; `rows` is what they become."""
        size = units.new_ones(self.rows.tokens.total, dtype=torch.float32) if self.size is None else self.size
        front, sizes = self.rows.split(size)
        weight = sizes[None, :, 0]  # (1, U): the patches of a unit share one size
        merged = apply_plan(units.flatten(1)[None], step, weight)[0].unflatten(1, units.shape[1:])
        if self.window is not None:
            self.window = self._narrow(self.window.to(units.device), step, rows)
        self.plan = step if self.plan is None else compose(self.plan, step)
        self.size = rows.join(front, merged_size(weight, step)[0, :, None].expand(-1, self.unit))
        self.rows = rows
        return merged

    def _compare(self, units: Tensor) -> tuple[KeepPlan, UnitRows]:
        """Budgets by novelty, and the merges over time: the step over all units (U, u, D), and the rows after it."""
        x, plans = _means(units), []
        final: list[int] = []
        lengths: list[int] = []
        place = 0
        for first, frames in self._starts():
            counts = self.dense[first : first + frames]
            u = x[place : place + sum(counts)]
            if len(set(counts)) > 1:
                raise ValueError(f"frames of {sorted(set(counts))} tokens in one clip; allowed: one size")
            u = u.unflatten(0, (frames, -1))
            left, ends = self._budgets(u)
            plans.append(temporal_plan(u, [counts[0] - n for n in left]))
            final, lengths = final + ends, lengths + left
            place += sum(counts)
        self.final = final
        return concatenate(plans), self.rows.changed(lengths, final)

    def _budgets(self, u: Tensor) -> tuple[list[int], list[int]]:
        """Units u (T, U, D) of one clip: how many each frame has after merging over time, and at the end."""
        frames, units = u.shape[:2]
        total = kept_of_clip(frames, units, self.keep)
        weights = novelty(u).tolist() if self.config.frames == "novelty" else [1.0] * frames
        over_time = round(self.config.temporal * (frames * units - total)) if frames > 1 else 0
        if not over_time:
            blocks = self.num_blocks - (self.compared or 0) - 1
            least = min(smallest_count(blocks, units, self.config.schedule), total // frames)
            return [units] * frames, list(frame_counts(weights, total, units, minimum=least))
        rest = (frames - 1) * units - min(over_time, (frames - 1) * (units - 1))
        left = [units, *frame_counts(weights[1:], rest, units)]
        return left, list(allocate(total, left, left))

    def _starts(self) -> list[tuple[int, int]]:
        """(first frame, frames) of each clip."""
        found, first = [], 0
        for frames in self.clips:
            found.append((first, frames))
            first += frames
        return found

    def _plan(self, group: int, block: int, units: Tensor) -> KeepPlan:
        """The step for one group's units (F, n, u, D)."""
        frames, count = units.shape[:2]
        remove = self.remove[group][block]
        if not remove:
            return identity_plan(frames, count, units.device)
        q, k, scale = self.heads or (units, units, 0.0)  # hidden states alone need none
        if self.config.method == "meteor":
            first = block == min(i for i, r in enumerate(self.remove[group]) if r)
            attention = None if first else self.importance(group, q, k, scale)
            return stage1_plan(_means(units), count - remove, attention=attention)
        critical = math.floor(self.config.critical_ratio * count)
        attention = None
        if critical or self.config.lambda_att:
            attention = self.importance(group, q, k, scale)
        if self.config.metric == "keys":
            units = self._keys(group, k)
        return bipartite_plan(
            _means(units),
            remove,
            importance=attention,
            lambda_div=self.config.lambda_div,
            lambda_att=self.config.lambda_att,
            critical=critical,
            neighbors=self.config.neighbors,
        )

    def _keys(self, group: int, k: Tensor) -> Tensor:
        """Head means of the keys (H, N, d) of one group: (F, n, u, d)."""
        return self.rows.units.split(self.rows.split(k.mean(0))[1])[group]

    def importance(self, group: int, q: Tensor, k: Tensor, scale: float) -> Tensor:
        """Attention to each unit of a group, (F, n), scaled so that 1 is the average at every depth."""
        tokens = self.rows.tokens
        bias = None
        if self.size is not None and self.config.proportional_attention:
            bias = tokens.split(self.size)[group].log()
        q, k = (tokens.split(t.transpose(0, 1))[group].transpose(1, 2) for t in (q, k))  # (F, H, n, d)
        if self.rows.prefix:
            a = cls_attention(q, k, scale=scale, num_prefix=self.rows.prefix, bias=bias)
        else:
            a = attention_received(q, k, scale=scale, bias=bias)
        return a.unflatten(1, (-1, self.unit)).mean(2) * a.shape[1]

    def last_heads(self) -> tuple[Tensor | None, Tensor | None]:
        """Of the last block: attention to each unit (F, n), and its head-mean keys (F, n, d). Frames of one size."""
        if self.heads is None:
            return None, None
        q, k, scale = self.heads
        if len(self.rows.units.groups) > 1:
            raise ValueError(f"frames of {sorted(set(self.dense))} tokens in one call; allowed: one size")
        return self.importance(0, q, k, scale), self._keys(0, k).mean(2)

    def choose(self, units: Tensor) -> Tensor:
        """A rival's choice among all units (U, u, D) that left the encoder: what survives, merged, (M, u, D)."""
        with self.clock.on(units.device):
            if self.plan is None:
                self.plan = self._chosen(_means(units))
                self.heads = None
            return apply_plan(units.flatten(1)[None], self.plan)[0].unflatten(1, units.shape[1:])

    def _chosen(self, x: Tensor) -> KeepPlan:
        attention, keys = self.last_heads()
        return choose(
            self.config.method,
            x.unflatten(0, (len(self.dense), -1)),
            [kept_of_clip(n, self.dense[first], self.keep) for first, n in self._starts()],
            self.clips,
            attention=attention,
            keys=keys,
            grid=self.grid if self.order is None else None,  # windows change the order
            generator=self.generator,
        )

    def finish(self, device: torch.device) -> KeepPlan:
        """The plan from the dense units to those that leave, one row; the controls choose here."""
        if self.plan is None:
            plans = []
            for group in self.rows.units.groups:
                frames, n, k = len(group), self.dense[group[0]], self.final[group[0]]
                if self.config.method == "random":
                    plans.append(random_plan(frames, n, k, generator=self.generator, device=device))
                elif self.config.method == "uniform":
                    plans.append(uniform_plan(frames, n, k, device=device))
                else:
                    plans.append(identity_plan(frames, n, device))
            self.plan = self.rows.whole(plans)
        return self.plan

    def kept(self) -> list[int]:
        """Units of each frame that left the encoder, or that leave it by the schedule."""
        if self.plan is None:
            return self.final
        edges = torch.tensor([0, *self.dense]).cumsum(0).to(self.plan.keep.device)
        return torch.searchsorted(self.plan.keep[0], edges).diff().tolist()

    def left(self, device: torch.device) -> Tensor:
        """Which of all dense units left the encoder: bool (all units,)."""
        plan = self.finish(device)
        marks = torch.zeros(plan.num_tokens, dtype=torch.bool, device=device)
        return marks.index_fill(0, plan.keep[0], True)

    def expand(self, units: Tensor, *, fill: float | None, end: bool = False) -> Tensor:
        """Packed rows of the units that left, (M, ...), back at their dense places: (all units, ...).

        fill: what dropped and merged places hold; None: each merged unit gets its survivor's value. end: these are
        the features that the LLM will get, so rivals choose here; before, they leave everything as it is.
        """
        if self.at_end:
            if not end or fill is None:
                return units
            merged = self.choose(units)
            assert self.plan is not None
            return unmerge(merged[None], _own_places(self.plan), fill=fill)[0]
        if self.fuse < 1 and end and fill is not None:
            with self.clock.on(units.device):
                left = self._fuse(units)
            assert self.plan is not None
            return unmerge(left[None], _own_places(self.plan), fill=fill)[0]
        plan = self.finish(units.device)
        if plan.num_kept == plan.num_tokens:
            return units
        if self.size is None:  # nothing left on the way: the controls
            if fill is None:
                return units
            return units.masked_fill(~self.left(units.device).view(-1, *[1] * (units.ndim - 1)), fill)
        place = plan if fill is None else _own_places(plan)
        return unmerge(units[None], place, fill=fill or 0.0)[0]

    def _fuse(self, units: Tensor) -> Tensor:
        """Stage 2 on the units (M, u, D) that left, or on all of them before a control's choice is carried out."""
        if self.fused is None:
            plan, frames = self.finish(units.device), self.kept()
            if units.shape[0] > plan.num_kept:
                units = units[plan.keep[0]]
            counts = [sum(frames[first : first + n]) for first, n in self._starts()]
            dense = [kept_of_clip(n, self.dense[first], self.keep * self.fuse) for first, n in self._starts()]
            keep = [min(a, b) for a, b in zip(dense, counts, strict=True)]
            self.fused = fuse_clips(self.fusion, _means(units), keep, counts, self.generator)
            self.plan = compose(plan, self.fused)
        elif units.shape[0] == sum(self.dense):
            assert self.plan is not None
            return units[self.plan.keep[0]]
        return gather(units[None], self.fused)[0]

    def _narrow(self, x: Tensor, step: KeepPlan, rows: UnitRows) -> Tensor:
        """Rows (N, ...) of the survivors."""
        front, units = self.rows.split(x)
        return rows.join(front, gather(units[None], step)[0])


def _means(units: Tensor) -> Tensor:
    """What units are compared by: the mean of their patches, (..., u, D) -> (..., D); rows (U, D) are it already."""
    if units.ndim == 2:
        return units
    return units[..., 0, :] if units.shape[-2] == 1 else units.mean(-2)


def _own_places(plan: KeepPlan) -> KeepPlan:
    """The plan as if it merged nothing: only the survivors' own places hold something."""
    every = torch.arange(plan.num_kept, device=plan.keep.device).expand_as(plan.keep)
    return KeepPlan(plan.keep, torch.full_like(plan.into, -1).scatter(1, plan.keep, every))
