"""One pass of a vision encoder in which tokens merge or leave between its blocks.

A family says where frames and units lie (`Layout`); the rest is here. A unit is what becomes one token of the LLM: a
patch, or the 2 x 2 patches (InternVL, Qwen-VL; 3 x 3 or 4 x 4 in SmolVLM) that the model joins behind the encoder.
Whole units merge, patch by patch, so every survivor is a valid one.

Shapes: F frames, P prefix tokens (CLS), U units of all frames, u patches of a unit, M units that left, D width,
H heads, d head width, N packed tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from videoprune.clock import Stopwatch
from videoprune.plug.attention import KeyBias, attend, sdpa
from videoprune.plug.encoder_end import EncoderEnd, own_places
from videoprune.plug.encoder_goal import EncoderGoal, Layout
from videoprune.plug.frame_merges import FrameMerges
from videoprune.plug.over_time import merge_over_time
from videoprune.plug.packing import PackedUnits, side_by_side, unit_means
from videoprune.prune.counts import comparing_block, kept_units, removals
from videoprune.prune.importance import attention_received, cls_attention
from videoprune.prune.merge import apply_sized, compose, gather, identity_plan, unmerge
from videoprune.prune.registry import INSIDE, BlockTokens, Depth, OrderedPlan
from videoprune.types import KeepPlan


class EncoderPass:
    """State of one pass: what each unit has become, and how blocks attend now. Made anew for every pass."""

    def __init__(
        self,
        name: str,
        layout: Layout,
        goal: EncoderGoal,
        clips: Sequence[int] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """name: of the encoder. clips: frames of each clip; None: every frame alone."""
        self.name, self.layout, self.goal, self.config = name, layout, goal, goal.config
        self.dense = [(n - layout.prefix) // layout.unit for n in layout.lengths]
        self.final = [goal.cuts[-1] if goal.cuts else kept_units(n, goal.keep) for n in self.dense]
        self.clips = list(clips) if clips is not None else [1] * len(layout.lengths)
        assert sum(self.clips) == len(layout.lengths), (self.clips, len(layout.lengths))
        self.last_block = goal.blocks - 1
        self.clock = Stopwatch()  # of choosing and merging
        self.generator = generator or torch.Generator().manual_seed(goal.seed)
        self.plan: KeepPlan | None = None  # one row, from dense units to now
        self.size: Tensor | None = None  # (N,) patches that each token stands for, None: one each
        self.bias: KeyBias | None = None  # log of the sizes
        self.order: Tensor | None = None  # (U,) each unit's place in its frame's `OrderedPlan`
        self.window: Tensor | None = None  # (N,) window of each token
        if layout.windows is not None:
            self.window = torch.repeat_interleave(
                torch.arange(len(layout.windows)), torch.tensor(layout.windows)
            )
        self.rows = PackedUnits(self.dense, unit=layout.unit, prefix=layout.prefix, kinds=self.final)
        self.rope: tuple[Tensor, ...] = ()  # rotary rows of packed tokens
        self.heads: tuple[Tensor, Tensor, float] | None = None  # queries, keys (H, N, d) of the last block
        self.inside = INSIDE.get(self.config.method)
        self.end = EncoderEnd(self)
        self.marked = 0  # places behind the encoder that hold no token
        self.countable = True  # whether a place is one token of the LLM
        self.remove: list[tuple[int, ...]] = []  # by group of frames, by block
        self.wanted: set[int] = set()  # blocks behind which something happens
        self.compared = comparing_block(self.config, goal.keep, goal.blocks)
        self.frames = FrameMerges.of(self)
        if self.frames is not None:
            self.wanted |= self.frames.blocks
        elif self.compared is None:
            self._schedule(0)
        else:
            self.wanted.add(self.compared)
        if self.end.needs_heads:
            self.wanted.add(self.last_block)
        self.looks = self.inside is None or self.inside.looks(self.config)

    @property
    def unit(self) -> int:
        return self.layout.unit

    def units(self) -> list[tuple[int, int]]:
        """Units of each frame before, and that left the encoder or leave it by the schedule."""
        return list(zip(self.dense, self.kept(), strict=True))

    def units_by_clip(self) -> list[list[tuple[int, int]]]:
        """The same, clip by clip, as far as it is known where clips end."""
        units, clips = self.units(), self.layout.clips or self.clips
        return [units[end - n : end] for n, end in zip(clips, accumulate(clips), strict=True)]

    def starts(self) -> list[tuple[int, int]]:
        """(first frame, frames) of each clip."""
        return [(end - n, n) for n, end in zip(self.clips, accumulate(self.clips), strict=True)]

    def _schedule(self, start: int) -> None:
        """Removals of each group after the blocks from `start` on. The groups stay apart from here on, also where two
        come to the same length on their ways."""
        self.remove, groups = [], self.rows.units.groups
        number = {f: g for g, group in enumerate(groups) for f in group}
        self.rows = self.rows.changed(self.rows.units.lengths, [number[f] for f in range(len(number))])
        for group in groups:
            now, final = self.rows.units.lengths[group[0]], self.final[group[0]]
            depth = Depth(self.goal.blocks - start, now, final, cuts=self.goal.cuts)
            self.remove.append((0,) * start + removals(self.config, depth))
        self.wanted = {i for row in self.remove for i, r in enumerate(row) if r}

    def attend(
        self, block: int, q: Tensor, k: Tensor, v: Tensor, scale: float, *, windowed: bool, kind: str
    ) -> Tensor:
        """Attention of one block on packed (H, N, d), within frames or windows, in proportion to size."""
        if block in self.wanted and self.looks:
            self.heads = (q, k, scale)
        return attend(q, k, v, self.stretches(windowed), scale=scale, bias=self.bias, kind=kind)

    def attend_frames(
        self, block: int, qkv: tuple[Tensor, Tensor, Tensor], scale: float, *, kind: str
    ) -> Tensor:
        """The same for frames of one length, as they come in a batch: q, k, v (F, H, n, d) -> (F, n, H, d)."""
        q, k, v = qkv
        if block in self.wanted and self.looks:
            self.heads = (q.transpose(0, 1).flatten(1, 2), k.transpose(0, 1).flatten(1, 2), scale)
        mask = None if self.bias is None else self.bias.mask(q.dtype).view(q.shape[0], 1, 1, -1)
        return sdpa(q, k, v, mask, scale, kind).transpose(1, 2)

    def stretches(self, windowed: bool) -> Sequence[int]:
        """Lengths of the stretches that attend to themselves now; windows that lost all tokens are gone."""
        if not windowed or self.window is None:
            return self.rows.tokens.lengths
        return torch.unique_consecutive(self.window, return_counts=True)[1].tolist()

    def after(self, block: int, x: Tensor, extra: Sequence[Tensor] = ()) -> tuple[Tensor, list[Tensor]]:
        """Shorten packed x (N, D), and rows that belong to its tokens (N, ...), as the schedule wants it."""
        found = self._after(block, [x], extra)
        return found[0], found[1:]

    def after_last(self, *xs: Tensor) -> list[Tensor]:
        """The same behind the last block, for several packed tensors at once; the first one decides."""
        return self._after(self.last_block, xs, ())

    def _after(self, block: int, xs: Sequence[Tensor], extra: Sequence[Tensor]) -> list[Tensor]:
        merges = self.frames is not None and block in self.frames.blocks
        if block not in self.wanted or (self.end.chooses and not merges):
            return [*xs, *extra]
        with self.clock.on(xs[0].device):
            return self._shorten(block, xs, extra)

    def _shorten(self, block: int, xs: Sequence[Tensor], extra: Sequence[Tensor]) -> list[Tensor]:
        self.wanted.discard(block)
        if self.frames is not None:
            return self.frames.merge(block, xs, extra)
        fronts, parts = zip(*(self.rows.split(x) for x in xs), strict=True)
        with torch.no_grad():
            if block == self.compared:
                step, rows = merge_over_time(self, side_by_side(parts[0]))
            else:
                groups = self.rows.units.split(parts[0])
                plans = [self._plan(g, block, one) for g, one in enumerate(groups)]
                step, rows = self.rows.whole(plans)
                self._order_by(plans)
        narrowed = [self._narrow(e, step, rows) for e in extra]
        left = self._sized(fronts, parts, step, rows)
        self._pass_on(step, rows)
        if block == self.compared:
            # A token stands for one patch of its own frame, however many frames merged into it.
            self.size, self.bias = left[0].new_ones(self.rows.tokens.total, dtype=torch.float32), None
            self._schedule(block + 1)
        return [*left, *narrowed]

    def _sized(
        self, fronts: Sequence[Tensor | None], parts: Sequence[Tensor], step: KeepPlan, rows: PackedUnits
    ) -> list[Tensor]:
        """Packed rows after a step of prefixes (F, P, D) and units (U, u, D), and the sizes of what is left."""
        size = self.size
        if size is None:
            size = parts[0].new_ones(self.rows.tokens.total, dtype=torch.float32)
        front, sizes = self.rows.split(size)
        # (1, U): the patches of a unit share one size.
        units, total = apply_sized([u[None] for u in parts], step, sizes[None, :, 0])
        self.take_sizes(rows.join(front, total[0, :, None].expand(-1, self.unit)))
        return [rows.join(f, u[0]) for f, u in zip(fronts, units, strict=True)]

    def take_sizes(self, size: Tensor) -> None:
        """From now on tokens stand for `size` patches, (N,)."""
        self.size, self.bias = size, KeyBias(size.log()) if self.config.proportional_attention else None

    def _pass_on(self, step: KeepPlan, rows: PackedUnits) -> None:
        """The step is done: what is kept by token becomes that of `rows`."""
        if self.window is not None:
            self.window = self._narrow(self.window.to(step.keep.device), step, rows)
        self.plan = step if self.plan is None else compose(self.plan, step)
        self.rows, self.heads = rows, None

    def _order_by(self, plans: Sequence[KeepPlan]) -> None:
        """Note the order that the method of `plans`, one for each group, goes on with."""
        orders = [plan.order if isinstance(plan, OrderedPlan) else None for plan in plans]
        if all(order is None for order in orders):
            return
        every = [torch.arange(p.num_kept, device=p.keep.device).expand_as(p.keep) for p in plans]
        self.order = self.rows.units.join([e if o is None else o for o, e in zip(orders, every, strict=True)])

    def _order_of(self, group: int) -> Tensor | None:
        return None if self.order is None else self.rows.units.split(self.order)[group]

    def _plan(self, group: int, block: int, units: Tensor) -> KeepPlan:
        """The step for one group's units (F, n, u, D)."""
        frames, count = units.shape[:2]
        remove = self.remove[group][block]
        if not remove:
            return OrderedPlan.of(identity_plan(frames, count, units.device), self._order_of(group))
        assert self.inside is not None
        first = block == min(i for i, r in enumerate(self.remove[group]) if r)
        q, k, scale = self.heads or (units, units, 0.0)  # a method that looks at neither gets neither
        tokens = BlockTokens(
            side_by_side(units),
            first=first,
            attention=lambda: self.importance(group, q, k, scale),
            keys=lambda: side_by_side(self._keys(group, k)),
            prefix=self.layout.prefix,
            order=self._order_of(group),
        )
        return self.inside.plan(tokens, remove, self.config)

    def _keys(self, group: int, k: Tensor) -> Tensor:
        """Head means of the keys (H, N, d) of one group: (F, n, u, d)."""
        return self.rows.units.split(self.rows.split(k.mean(0))[1])[group]

    def importance(self, group: int, q: Tensor, k: Tensor, scale: float) -> Tensor:
        """Attention to each unit of a group, (F, n), scaled so that 1 is the average at every depth."""
        tokens = self.rows.tokens
        bias = None if self.bias is None else tokens.split(self.bias.values)[group]
        q, k = (tokens.split(t.transpose(0, 1))[group].transpose(1, 2) for t in (q, k))  # (F, H, n, d)
        if self.rows.prefix:
            a = cls_attention(q, k, scale=scale, num_prefix=self.rows.prefix, bias=bias)
        else:
            a = attention_received(q, k, scale=scale, bias=bias)
        return a.unflatten(1, (-1, self.unit)).mean(2) * a.shape[1]

    def last_heads(self) -> tuple[Tensor | None, Tensor | None]:
        """Of the last block: attention to each unit (F, n), and its head-mean keys (F, n, d). Frames of one size.

        Where whole frames merged: the attention of the block behind which the last did, and no keys."""
        if self.frames is not None and self.frames.attention is not None:
            return self.frames.attention.unflatten(0, (sum(self.frames.clips), -1)), None
        if self.heads is None:
            return None, None
        q, k, scale = self.heads
        if len(self.rows.units.groups) > 1:
            raise ValueError(f"frames of {sorted(set(self.dense))} tokens in one call; allowed: one size")
        return self.importance(0, q, k, scale), unit_means(self._keys(0, k))

    def finish(self, device: torch.device) -> KeepPlan:
        """The plan from the dense units to those that leave, one row; the controls choose here."""
        if self.plan is None:
            self.plan = self.end.control(device)
        return self.plan

    def kept(self) -> list[int]:
        """Units of each frame that left the encoder, or that leave it by the schedule."""
        if self.plan is None:
            return self.final
        if self.size is not None and self.end.fused is None:
            return list(self.rows.units.lengths)  # all left on the way, by plans whose counts are known
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
        if self.end.chooses and (not end or fill is None):
            if self.plan is None or fill is None:
                return units
            return unmerge(units[None], own_places(self.plan), fill=fill)[0]  # whole frames left before a tap
        if end and fill is not None and (self.end.chooses or self.end.fuses):
            with self.clock.on(units.device):
                left = self.end.reduce(units)
        else:
            plan = self.finish(units.device)
            if plan.num_kept == plan.num_tokens:
                return units
            on_the_way = self.size is not None  # controls leave all to the end
            if fill is None:
                return unmerge(units[None], plan)[0] if on_the_way else units
            left = units if on_the_way else units[plan.keep[0]]
        assert self.plan is not None
        if end:
            self.marked = self.plan.num_tokens - self.plan.num_kept
        return unmerge(left[None], own_places(self.plan), fill=fill)[0]

    def _narrow(self, x: Tensor, step: KeepPlan, rows: PackedUnits) -> Tensor:
        """Rows (N, ...) of the survivors."""
        front, units = self.rows.split(x)
        return rows.join(front, gather(units[None], step)[0])
