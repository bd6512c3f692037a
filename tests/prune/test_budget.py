"""Whole-number budgets: exact sums, bounds kept, proportional in between."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videoprune.prune.budget import allocate, encoder_budget, meteor_counts


def waterline_oracle(total: int, weights: list[float], low: list[int], high: list[int]) -> list[float]:
    """clamp(s * weight, low, high) with the s that gives `total`, found by halving."""
    left, right = 0.0, 1e12
    for _ in range(300):
        s = (left + right) / 2
        shares = [min(max(s * w, a), b) for w, a, b in zip(weights, low, high, strict=True)]
        left, right = (s, right) if sum(shares) < total else (left, s)
    return shares


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 40)), min_size=1, max_size=7),
    st.integers(0, 4),
    st.data(),
)
def test_sum_bounds_and_proportion(pairs: list[tuple[int, int]], minimum: int, data: st.DataObject) -> None:
    weights, capacities = [w / 10 for w, _ in pairs], [c for _, c in pairs]
    low = [min(minimum, c) for c in capacities]
    total = data.draw(st.integers(sum(low), sum(capacities)))
    counts = allocate(total, weights, capacities, minimum=minimum)
    assert sum(counts) == total
    assert all(a <= n <= c for a, n, c in zip(low, counts, capacities, strict=True))
    ideal = waterline_oracle(total, weights, low, capacities)
    assert all(abs(n - share) < 1 + 1e-6 for n, share in zip(counts, ideal, strict=True))


def test_largest_remainders_and_ties() -> None:
    assert allocate(10, [1, 1, 1], [10, 10, 10]) == (4, 3, 3)
    assert allocate(11, [1, 1, 1], [10, 10, 10]) == (4, 4, 3)
    assert allocate(10, [5, 3, 1], [10, 10, 10]) == (6, 3, 1)  # 5.56, 3.33, 1.11
    assert allocate(7, [0.1, 0.2, 0.4], [9, 9, 9]) == (1, 2, 4)


def test_surplus_goes_to_the_others_in_proportion() -> None:
    assert allocate(20, [8, 1, 3], [4, 100, 100]) == (4, 4, 12)
    assert allocate(9, [100, 1, 1], [9, 9, 9], minimum=2) == (5, 2, 2)
    assert allocate(6, [1, 0, 0], [2, 9, 9], minimum=0) == (2, 2, 2)
    assert allocate(6, [0, 0], [9, 9]) == (3, 3)
    assert allocate(5, [1, 1, 1], [0, 9, 9]) == (0, 3, 2)
    assert allocate(0, [1, 1], [3, 3], minimum=0) == (0, 0)
    assert allocate(0, [], []) == ()
    # The first is above its capacity, but the others lack more than it can spare.
    assert allocate(21, [60, 1, 1, 1, 1], [10] * 5, minimum=4) == (5, 4, 4, 4, 4)


@pytest.mark.parametrize(
    ("total", "weights", "capacities", "minimum", "words"),
    [
        (7, [1, 1], [3, 3], 1, r"total=7; allowed: 2\.\.6"),
        (1, [1, 1], [3, 3], 1, r"total=1; allowed: 2\.\.6"),
        (3, [1, -1], [3, 3], 1, "weights="),
        (3, [1, float("nan")], [3, 3], 1, "weights="),
        (3, [1, float("inf")], [3, 3], 1, "weights="),
        (3, [1, 1], [3, -3], 1, "capacities="),
        (3, [1, 1, 1], [3, 3], 1, "weights: 3"),
        (3, [1, 1], [3, 3], -1, "minimum=-1"),
    ],
)
def test_allocate_refuses(
    total: int, weights: list[float], capacities: list[int], minimum: int, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        allocate(total, weights, capacities, minimum=minimum)


def test_encoder_budget_rules() -> None:
    ranks, capacities = [30.0, 20.0, 10.0], [100, 100, 100]
    assert encoder_budget(60, capacities, rule="rank", ranks=ranks) == (30, 20, 10)
    assert encoder_budget(60, capacities, rule="equal", ranks=ranks) == (20, 20, 20)
    assert encoder_budget(60, capacities, rule="equal") == (20, 20, 20)
    # 1/30 : 1/20 : 1/10 = 2 : 3 : 6
    assert encoder_budget(66, capacities, rule="reverse", ranks=ranks) == (12, 18, 36)
    assert encoder_budget(60, [10, 100, 100], rule="equal") == (10, 25, 25)
    assert encoder_budget(300, capacities, rule="rank", ranks=ranks) == (100, 100, 100)


def test_encoder_budget_refuses() -> None:
    with pytest.raises(ValueError, match="ranks=None; needed for rule='rank'"):
        encoder_budget(4, [3, 3], rule="rank")
    with pytest.raises(ValueError, match="ranks="):
        encoder_budget(4, [3, 3], rule="reverse", ranks=[1.0, 0.0])
    with pytest.raises(ValueError, match=r"rule='best'.*allowed: rank, equal, reverse"):
        encoder_budget(4, [3, 3], rule="best", ranks=[1.0, 1.0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="weights: 1"):
        encoder_budget(4, [3, 3], rule="rank", ranks=[1.0])


@settings(max_examples=100)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 6))
def test_meteor_counts_fall_in_equal_ratios(dense: int, final: int, cuts: int) -> None:
    final = min(final, dense)
    counts = meteor_counts(dense, final, cuts)
    assert len(counts) == cuts
    assert counts[-1] == final
    assert list(counts) == sorted(counts, reverse=True)
    assert counts[0] <= dense
    for b, count in enumerate(counts, start=1):
        assert abs(count - dense ** (1 - b / cuts) * final ** (b / cuts)) <= 0.5 + 1e-6


def test_meteor_counts_known_and_refused() -> None:
    assert meteor_counts(1000, 125) == (500, 250, 125)
    assert meteor_counts(1000, 1000) == (1000, 1000, 1000)
    for final in (0, 11):
        with pytest.raises(ValueError, match=f"final={final}"):
            meteor_counts(10, final)
    with pytest.raises(ValueError, match="num_cuts=0"):
        meteor_counts(10, 5, 0)
