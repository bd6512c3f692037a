"""Share a whole number of tokens exactly: over encoders, frames and cuts.

Shapes: L encoders (or frames), k tokens in all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import get_args

from videoprune.config import BudgetRule


def allocate(
    total: int, weights: Sequence[float], capacities: Sequence[int], *, minimum: int = 1
) -> tuple[int, ...]:
    """Split `total` in proportion to `weights`, none above its capacity, summing exactly to `total`.

    Each gets at least `minimum`, or all of its capacity where that is smaller. What a full or a minimal one
    cannot take or give is shared by the others in proportion. Fractions go to the largest remainders, equal
    ones to the earlier. If all that can still take have weight 0, they share equally.
    Raises ValueError if no such split exists, or for a weight that is negative or not finite.
    """
    if len(weights) != len(capacities):
        raise ValueError(f"weights: {len(weights)} of them; allowed: {len(capacities)}, as capacities has")
    for name, values in (("weights", weights), ("capacities", capacities)):
        if any(not math.isfinite(v) or v < 0 for v in values):
            raise ValueError(f"{name}={tuple(values)}; allowed: finite numbers, 0 or more")
    if minimum < 0:
        raise ValueError(f"minimum={minimum}; allowed: 0 or more")
    lowest = [min(minimum, c) for c in capacities]
    if not sum(lowest) <= total <= sum(capacities):
        raise ValueError(
            f"total={total}; allowed: {sum(lowest)}..{sum(capacities)} for capacities={tuple(capacities)} "
            f"and minimum={minimum}"
        )
    return _round(total, _proportional(total, weights, lowest, capacities))


def _proportional(
    total: int, weights: Sequence[float], lowest: Sequence[int], highest: Sequence[int]
) -> list[Fraction]:
    """The shares s * weight, held within [lowest, highest], that sum to `total`.

    Fix those that break a bound and share the rest again. Only the side that is wrong by more is fixed in a
    round: its shares stay out of bounds in every later round, those of the other side may not. Exact, so ties
    are ties.
    """
    share = [Fraction(0)] * len(weights)
    free = list(range(len(weights)))
    left = Fraction(total)
    while free:
        ratio = _ratios([weights[i] for i in free])
        for i, r in zip(free, ratio, strict=True):
            share[i] = left * r
        over = [i for i in free if share[i] > highest[i]]
        under = [i for i in free if share[i] < lowest[i]]
        if not over and not under:
            break
        excess = sum(share[i] - highest[i] for i in over) - sum(lowest[i] - share[i] for i in under)
        fixed = over if excess > 0 else under if excess < 0 else over + under
        for i in fixed:
            share[i] = Fraction(highest[i] if i in over else lowest[i])
            left -= share[i]
        free = [i for i in free if i not in fixed]
    return share


def _ratios(weights: Sequence[float]) -> list[Fraction]:
    exact = [Fraction(w) for w in weights]
    if not any(exact):
        exact = [Fraction(1)] * len(weights)
    total = sum(exact)
    return [w / total for w in exact]


def _round(total: int, share: Sequence[Fraction]) -> tuple[int, ...]:
    counts = [math.floor(s) for s in share]
    by_remainder = sorted(range(len(share)), key=lambda i: (counts[i] - share[i], i))
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    assert sum(counts) == total
    return tuple(counts)


def encoder_budget(
    total: int, capacities: Sequence[int], *, rule: BudgetRule, ranks: Sequence[float] | None = None
) -> tuple[int, ...]:
    """Tokens for each encoder out of `total` (METEOR, arXiv 2507.20842, stage 1). Sums exactly to `total`.

    capacities: tokens that each encoder has. ranks: the rank of each encoder's feature map, above 0.
    `rank`: k_l = k * r_l / sum r. `equal`: the same for each. `reverse`: in proportion to 1 / r_l.
    Each encoder gets at least one token. Raises ValueError if ranks are missing or the total is impossible.
    """
    if rule not in get_args(BudgetRule):
        raise ValueError(f"rule={rule!r}; allowed: {', '.join(get_args(BudgetRule))}")
    if rule == "equal":
        return allocate(total, [1.0] * len(capacities), capacities)
    if ranks is None:
        raise ValueError(f"ranks=None; needed for rule={rule!r}, one for each encoder")
    if any(not math.isfinite(r) or r <= 0 for r in ranks):
        raise ValueError(f"ranks={tuple(ranks)}; allowed: finite numbers above 0")
    return allocate(total, [r if rule == "rank" else 1 / r for r in ranks], capacities)


def meteor_counts(dense: int, final: int, num_cuts: int = 3) -> tuple[int, ...]:
    """Tokens after each of `num_cuts` cuts, all encoders together: each cut keeps the same share.

    After cut b, counted from 1: dense * (final / dense) ** (b / num_cuts), rounded; the last is exactly
    `final`. METEOR gives no row for its three cuts; the geometric one is this project's.
    """
    if not 1 <= final <= dense:
        raise ValueError(f"final={final}; allowed: 1..{dense}, the dense tokens")
    if num_cuts < 1:
        raise ValueError(f"num_cuts={num_cuts}; allowed: 1 or more")
    return (*(round(dense * (final / dense) ** (b / num_cuts)) for b in range(1, num_cuts)), final)
