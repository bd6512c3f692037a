"""Frames packed one behind the other, whose lengths shrink frame by frame: rows by frame, and units of a frame.

A unit is what becomes one token of the LLM. A frame holds a few prefix tokens (CLS) and whole units.

Shapes: F frames, P prefix tokens, U units of all frames, u patches of a unit, N = F * P + U * u packed tokens.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from videoprune.types import KeepPlan


class FrameRows:
    """Rows of a packed (N, ...) tensor by frame, in groups of equal length.

    groups: frames that belong together, where that is known from before; all of a group have one length.
    """

    def __init__(self, lengths: Sequence[int], groups: list[list[int]] | None = None) -> None:
        self.lengths = tuple(lengths)
        self.starts = [0]
        for n in self.lengths:
            self.starts.append(self.starts[-1] + n)
        self.groups = groups or [
            [i for i, n in enumerate(self.lengths) if n == length] for length in sorted(set(self.lengths))
        ]
        # Asked for twice: of the rows after a step and before the next.
        self._starts_of: dict[int, Tensor] = {}

    @property
    def total(self) -> int:
        return self.starts[-1]

    def starts_of(self, group: int, device: torch.device) -> Tensor:
        """Where the frames of a group begin: (F_g, 1)."""
        if group not in self._starts_of:
            frames, length = self.groups[group], self.lengths[0]
            if len(self.groups) == 1 and length:  # made on the device, which takes it without a wait
                found = torch.arange(0, len(frames) * length, length, device=device)
            else:
                found = torch.tensor([self.starts[f] for f in frames], device=device)
            self._starts_of[group] = found[:, None]
        return self._starts_of[group]

    def split(self, x: Tensor) -> list[Tensor]:
        """(N, ...) -> one (F_g, n_g, ...) per group."""
        if len(self.groups) == 1:
            return [x.unflatten(0, (len(self.lengths), self.lengths[0]))]
        return [torch.stack([x[self.starts[i] : self.starts[i + 1]] for i in group]) for group in self.groups]

    def changed(self, lengths: Sequence[int]) -> FrameRows:
        """The same groups with a new length for each."""
        by_frame = [0] * len(self.lengths)
        for group, n in zip(self.groups, lengths, strict=True):
            for i in group:
                by_frame[i] = n
        return FrameRows(by_frame, self.groups)

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """One (F_g, m_g, ...) per group -> (M, ...), frames in their order; the lengths may have changed."""
        if len(parts) == 1:
            return parts[0].flatten(0, 1)
        rows: list[Tensor] = [parts[0]] * len(self.lengths)
        for group, part in zip(self.groups, parts, strict=True):
            for i, row in zip(group, part, strict=True):
                rows[i] = row
        return torch.cat(rows)


class PackedUnits:
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

    def changed(self, units: Sequence[int], kinds: Sequence[Hashable] | None = None) -> PackedUnits:
        return PackedUnits(units, unit=self.unit, prefix=self.prefix, kinds=kinds or self.kinds)

    def after(self, plans: Sequence[KeepPlan]) -> PackedUnits:
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

    def whole(self, plans: Sequence[KeepPlan]) -> tuple[KeepPlan, PackedUnits]:
        """One plan for each group (F_g, n) -> one row over the units of all frames, and the rows that it leaves."""
        after = self.after(plans)
        keeps, intos = [], []
        for group, plan in enumerate(plans):
            old, new = (rows.starts_of(group, plan.keep.device) for rows in (self.units, after.units))
            keeps.append(plan.keep + old)
            intos.append((plan.into + new).where(plan.into >= 0, -1) if plan.drops else plan.into + new)
        whole = KeepPlan(
            self.units.join(keeps)[None],
            self.units.join(intos)[None],
            drops=any(plan.drops for plan in plans),
            merges=any(plan.merges for plan in plans),
        )
        return whole, after

    def _prefix_places(self, device: torch.device) -> Tensor:
        starts = torch.tensor(self.tokens.starts[:-1], device=device)
        return (starts[:, None] + torch.arange(self.prefix, device=device)).flatten()


def side_by_side(units: Tensor) -> Tensor:
    """What units are compared by inside the encoder: their patches one behind the other, (..., u, D) -> (..., u * D).

    A cosine is then that of corresponding patches, by their lengths. Means of the patches hide what one of them shows.
    """
    return units.flatten(-2)


def unit_means(units: Tensor) -> Tensor:
    """Units as one token each: the mean of their patches, (..., u, D) -> (..., D); rows (U, D) are it already."""
    if units.ndim == 2:
        return units
    return units[..., 0, :] if units.shape[-2] == 1 else units.mean(-2)


def plan_by_frame(plan: KeepPlan, frames: int) -> KeepPlan:
    """A plan of one row over the units of all frames, which keeps as many of each -> one row a frame, (F, n)."""
    keep, into = plan.keep.unflatten(1, (frames, -1))[0], plan.into.unflatten(1, (frames, -1))[0]
    frame = torch.arange(frames, device=keep.device)[:, None]
    own = into - keep.shape[1] * frame
    return KeepPlan(keep - into.shape[1] * frame, own.where(into >= 0, -1))
