"""Frames of packed units: a few prefix tokens (CLS) and whole units in each, lengths that shrink frame by frame.

Shapes: F frames, P prefix tokens, U units of all frames, u patches of a unit, N = F * P + U * u packed tokens.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from videoprune.plug.attention import FrameRows
from videoprune.types import KeepPlan


class UnitRows:
    """units: how many each frame has. kinds: what else frames must share to be handled in one group."""

    def __init__(
        self, units: Sequence[int], *, unit: int, prefix: int, kinds: Sequence[Hashable] | None = None
    ) -> None:
        self.unit, self.prefix = unit, prefix
        self.kinds = tuple(kinds) if kinds is not None else (0,) * len(units)
        members: dict[Hashable, list[int]] = {}
        for f, key in enumerate(zip(units, self.kinds, strict=True)):
            members.setdefault(key, []).append(f)
        groups = list(members.values())
        self.units = FrameRows(units, groups)
        self.tokens = FrameRows([prefix + unit * n for n in units], groups)

    @property
    def even(self) -> bool:
        """Whether all frames have the same length."""
        return len(set(self.units.lengths)) == 1

    def changed(self, units: Sequence[int], kinds: Sequence[Hashable] | None = None) -> UnitRows:
        return UnitRows(units, unit=self.unit, prefix=self.prefix, kinds=kinds or self.kinds)

    def after(self, plans: Sequence[KeepPlan]) -> UnitRows:
        """The rows that one plan for each group leaves."""
        kept = [0] * len(self.units.lengths)
        for group, plan in zip(self.units.groups, plans, strict=True):
            for f in group:
                kept[f] = plan.num_kept
        return self.changed(kept)

    def split(self, x: Tensor) -> tuple[Tensor | None, Tensor]:
        """(N, ...) -> prefix rows (F, P, ...) or None, and units (U, u, ...), frames in order."""
        if not self.prefix:
            return None, x.unflatten(0, (-1, self.unit))
        if self.even:
            x = x.unflatten(0, (len(self.units.lengths), -1))
            return x[:, : self.prefix], x[:, self.prefix :].flatten(0, 1).unflatten(0, (-1, self.unit))
        first = self._prefix_places(x.device)
        rest = torch.ones(x.shape[0], dtype=torch.bool, device=x.device)
        rest[first] = False
        front = x[first].unflatten(0, (len(self.units.lengths), self.prefix))
        return front, x[rest].unflatten(0, (-1, self.unit))

    def join(self, prefix: Tensor | None, units: Tensor) -> Tensor:
        """The inverse of `split`."""
        body = units.flatten(0, 1)
        if prefix is None:
            return body
        if self.even:
            body = body.unflatten(0, (prefix.shape[0], -1))
            return torch.cat([prefix, body], 1).flatten(0, 1)
        first = self._prefix_places(body.device)
        x = body.new_empty(self.tokens.total, *body.shape[1:])
        rest = torch.ones(len(x), dtype=torch.bool, device=body.device)
        rest[first] = False
        x[first], x[rest] = prefix.flatten(0, 1), body
        return x

    def whole(self, plans: Sequence[KeepPlan]) -> KeepPlan:
        """One plan for each group (F_g, n) -> one row over the units of all frames."""
        after = self.after(plans)
        keeps, intos = [], []
        for group, plan in zip(self.units.groups, plans, strict=True):
            device = plan.keep.device
            old = torch.tensor([self.units.starts[f] for f in group], device=device)[:, None]
            new = torch.tensor([after.units.starts[f] for f in group], device=device)[:, None]
            keeps.append(plan.keep + old)
            intos.append((plan.into + new).where(plan.into >= 0, -1))
        return KeepPlan(self.units.join(keeps)[None], self.units.join(intos)[None])

    def _prefix_places(self, device: torch.device) -> Tensor:
        starts = torch.tensor(self.tokens.starts[:-1], device=device)
        return (starts[:, None] + torch.arange(self.prefix, device=device)).flatten()
