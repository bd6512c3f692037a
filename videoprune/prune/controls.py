"""Controls: plans that never look at a token. Any method has to beat them at the same count.

Shapes: B rows, N tokens, K kept tokens.
"""

from __future__ import annotations

import math

import torch

from videoprune.prune.kinds import ByFrame
from videoprune.prune.merge import drop_others
from videoprune.types import KeepPlan


class RandomPlaces(ByFrame):
    """Drawn without replacement, anew in each frame."""

    source = "control: drawn without replacement"
    draws = True

    def plan(
        self,
        frames: int,
        tokens: int,
        keep: int,
        *,
        grid: tuple[int, int] | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> KeepPlan:
        return random_plan(frames, tokens, keep, generator=generator, device=device)


class UniformPlaces(ByFrame):
    """Evenly spaced over rows and columns of each frame's grid, or over the order without a grid."""

    source = "control: evenly spaced in every frame"

    def plan(
        self,
        frames: int,
        tokens: int,
        keep: int,
        *,
        grid: tuple[int, int] | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> KeepPlan:
        if grid is None:
            return uniform_plan(frames, tokens, keep, device=device)
        return uniform_grid_plan(frames, *grid, keep, device=device)


def random_plan(
    batch: int,
    num_tokens: int,
    keep: int,
    *,
    generator: torch.Generator | None,
    device: torch.device | str | None = None,
) -> KeepPlan:
    """Keep `keep` tokens drawn without replacement, anew in each row.

    generator: drawn from on its own device, so a CPU generator gives the same plan whatever `device` is.
    None: torch's global one.
    """
    _check_keep(keep, num_tokens)
    drawn = torch.rand(batch, num_tokens, generator=generator, device=generator.device if generator else None)
    return drop_others(drawn.argsort(dim=1, stable=True)[:, :keep].sort(dim=1).values.to(device), num_tokens)


def uniform_plan(
    batch: int, num_tokens: int, keep: int, *, device: torch.device | str | None = None
) -> KeepPlan:
    """Keep `keep` evenly spaced tokens: the middles of `keep` equal stretches."""
    _check_keep(keep, num_tokens)
    return _repeat(evenly_spaced(num_tokens, keep), batch, num_tokens, device)


def uniform_grid_plan(
    batch: int, rows: int, columns: int, keep: int, *, device: torch.device | str | None = None
) -> KeepPlan:
    """Keep `keep` tokens spread evenly over both directions of a grid of rows x columns, row by row.

    `uniform_plan` spreads them over the row-major order only: at a fourth of the tokens it keeps every fourth
    column of every row, while this keeps every second column of every second row.
    """
    _check_keep(keep, rows * columns)
    if keep == 0:
        return _repeat([], batch, rows * columns, device)
    wanted = round(math.sqrt(keep * rows / columns))
    used = min(max(wanted, math.ceil(keep / columns), 1), rows, keep)
    base, more = divmod(keep, used)
    longer = set(evenly_spaced(used, more))
    positions = [
        row * columns + column
        for i, row in enumerate(evenly_spaced(rows, used))
        for column in evenly_spaced(columns, base + (i in longer))
    ]
    return _repeat(positions, batch, rows * columns, device)


def evenly_spaced(length: int, count: int) -> list[int]:
    """`count` distinct positions in 0..length - 1, the middles of equal stretches; count <= length."""
    return [(2 * i + 1) * length // (2 * count) for i in range(count)]


def _repeat(positions: list[int], batch: int, num_tokens: int, device: torch.device | str | None) -> KeepPlan:
    keep = torch.tensor(positions, dtype=torch.int64, device=device)
    return drop_others(keep.expand(batch, len(positions)), num_tokens)


def _check_keep(keep: int, num_tokens: int) -> None:
    if not 0 <= keep <= num_tokens:
        raise ValueError(f"keep={keep}; allowed: 0..{num_tokens}, the number of tokens")
