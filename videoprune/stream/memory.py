"""What is left of a stream: its first steps, a bank of old ones that fades, the newest in full. No model, no clock.

Shapes: N tokens of the bank, K tokens of a step, W width of the LLM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from videoprune.prune.fade import fade_plan
from videoprune.prune.merge import apply_sized, gather
from videoprune.types import TimeStep


@dataclass(frozen=True)
class StreamConfig:
    """How much of a stream is kept.

    max_visual_tokens, max_bytes: of all that is held; the bytes are those of the tokens' tensors. max_steps: time steps
    that a prompt says. sinks: the first steps, kept as they are, in at most a quarter of the budget. window: the
    newest, kept as they are, in at most half of it. spare: share of the budget that goes at once when it is full, so
    that forgetting is rare.
    merge_above: of the tokens that go, those whose cosine with a survivor is below are dropped instead of merged.
    still: a frame whose blocks of 8 x 8 pixels all differ on average by less (of 255) from the last one that was
    encoded is that one, longer.
    """

    max_visual_tokens: int = 4096
    max_bytes: int = 2**28
    max_steps: int = 128
    sinks: int = 1
    window: int = 16
    spare: float = 0.125
    merge_above: float = 0.8
    still: float = 2.0

    def __post_init__(self) -> None:
        for name, least in (("max_visual_tokens", 1), ("max_bytes", 1), ("sinks", 0), ("window", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}; allowed: {least} or more")
        if self.max_steps < self.sinks + self.window + 2:
            raise ValueError(
                f"max_steps={self.max_steps} with sinks={self.sinks} and window={self.window}; allowed: "
                f"{self.sinks + self.window + 2} or more, two of the bank beside them"
            )
        for name, low, high in (("spare", 0.0, 0.9), ("merge_above", -1.0, 1.0), ("still", 0.0, 255.0)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name}={getattr(self, name)}; allowed: {low} to {high}")


@dataclass(frozen=True)
class Held:
    """A time step, and the seconds it stands for, from the first frame that it is of to the last."""

    step: TimeStep
    first: float
    last: float


class StreamMemory:
    """Time steps in, at most the configured number of tokens held. One thread writes; what `held` gives is a value.

    version: changes with what `held` tells.
    """

    def __init__(self, config: StreamConfig) -> None:
        self.config = config
        self.version = 0
        self.arrived = 0  # tokens, since the beginning
        self._sinks: list[Held] = []
        self._bank: list[Held] = []
        self._window: list[Held] = []

    def held(self) -> tuple[Held, ...]:
        """All that is left, ascending in time."""
        return (*self._sinks, *self._bank, *self._window)

    @property
    def num_tokens(self) -> int:
        return sum(len(h.step) for h in self.held())

    @property
    def num_bytes(self) -> int:
        return sum(h.step.num_bytes for h in self.held())

    def add(self, step: TimeStep) -> None:
        """Raises ValueError for a step that is not later than all before, or larger than half of the budget."""
        first, last = step.pts_seconds[0], step.pts_seconds[-1]
        newest = self.held()[-1:]
        if newest and first <= newest[0].last:
            raise ValueError(f"pts_seconds={step.pts_seconds}; allowed: later than {newest[0].last}")
        budget = self._budget(step)
        if 2 * len(step) > budget:
            given = f"max_visual_tokens={self.config.max_visual_tokens}, max_bytes={self.config.max_bytes}"
            raise ValueError(
                f"{given}: {budget} tokens; allowed: {2 * len(step)} or more, twice those of one time step"
            )
        self.version += 1
        self.arrived += len(step)
        if self._is_sink(step, budget):
            self._sinks.append(Held(step, first, last))
            return
        self._window.append(Held(step, first, last))
        self._age(budget)

    def stay(self, seconds: float) -> None:
        """What was seen last is still seen. Raises ValueError where nothing was, or for a time that is not later."""
        part = self._window or self._sinks
        if not part or seconds <= part[-1].last:
            raise ValueError(
                f"seconds={seconds}; allowed: later than the last step, {part[-1].last if part else None}"
            )
        part[-1] = replace(part[-1], last=seconds)
        self.version += 1

    def _is_sink(self, step: TimeStep, budget: int) -> bool:
        """One of the first, while these have at most a quarter of the budget."""
        if self._window or len(self._sinks) >= self.config.sinks:
            return False
        return 4 * sum(len(s) for s in (*(h.step for h in self._sinks), step)) <= budget

    def _budget(self, step: TimeStep) -> int:
        """Tokens that may be held, as large as those of `step`."""
        each = max(1, step.num_bytes // max(1, len(step)))
        return min(self.config.max_visual_tokens, self.config.max_bytes // each)

    def _age(self, budget: int) -> None:
        while len(self._window) > self.config.window or sum(len(h.step) for h in self._window) > budget // 2:
            self._bank.append(self._window.pop(0))
        over = self.num_tokens - budget
        if over > 0:
            self._fade(over + int(self.config.spare * budget))
        most = self.config.max_steps - len(self._sinks) - len(self._window)
        while len(self._bank) > most:
            self._join()

    def _fade(self, gone: int) -> None:
        """`gone` tokens of the bank merge into its others, but for one. It has as many as are too many: sinks and
        window hold at most three quarters."""
        counts = [len(h.step) for h in self._bank]
        keep = max(1, sum(counts) - gone)
        x = torch.cat([h.step.x for h in self._bank])
        seconds = np.repeat([h.first for h in self._bank], counts)
        plan = fade_plan(x, seconds, keep, merge_above=self.config.merge_above)
        size = torch.cat([h.step.size for h in self._bank])[None]
        levels = [torch.cat(parts)[None] for parts in zip(*(h.step.deep for h in self._bank), strict=True)]
        (merged, *deep), total = apply_sized([x[None], *levels], plan, size)
        place = gather(torch.cat([h.step.place for h in self._bank])[None], plan)
        owner = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(plan.keep.device)
        left = torch.bincount(owner[plan.keep[0]], minlength=len(counts)).tolist()
        ends = np.cumsum([0, *left])
        faded = []
        for i, h in enumerate(self._bank):
            mine = slice(int(ends[i]), int(ends[i + 1]))
            if left[i]:  # of their own: a view would hold what all of the bank held
                step = replace(
                    h.step,
                    x=merged[0, mine].clone(),
                    place=place[0, mine].clone(),
                    size=total[0, mine].clone(),
                    deep=tuple(d[0, mine].clone() for d in deep),
                )
                faded.append(replace(h, step=step))
        self._bank = faded

    def _join(self) -> None:
        """The two neighbours in the bank with the fewest tokens become one step, at the time of the larger."""
        counts = [len(h.step) for h in self._bank]
        at = min(range(len(counts) - 1), key=lambda i: counts[i] + counts[i + 1])
        self._bank[at : at + 2] = [_joined(*self._bank[at : at + 2])]


def _joined(one: Held, other: Held) -> Held:
    """Tokens of both; at a place that both have, the mean by size."""
    steps = (one.step, other.step)
    larger = max(steps, key=len)
    place, row = torch.cat([s.place for s in steps]).unique(return_inverse=True)
    size = torch.cat([s.size for s in steps])
    total = size.new_zeros(len(place)).index_add_(0, row, size)
    share = size / total[row]

    def mean(parts: Sequence[torch.Tensor]) -> torch.Tensor:
        x = torch.cat(list(parts))
        summed = x.new_zeros(len(place), x.shape[1], dtype=torch.promote_types(x.dtype, torch.float32))
        return summed.index_add_(0, row, x.to(summed) * share[:, None].to(summed)).to(x.dtype)

    step = replace(
        larger,
        x=mean([s.x for s in steps]),
        place=place,
        size=total,
        deep=tuple(mean(parts) for parts in zip(*(s.deep for s in steps), strict=True)),
    )
    return Held(step, one.first, other.last)
