"""METEOR's third stage: counts by attention, shares by average, lambda by measuring."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from videoprune.prune.adaptive import adaptive_counts, geometric_ratios, solve_lambda


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=60)
@given(
    heads=st.integers(1, 6),
    keys=st.integers(1, 8),
    lambda_=st.floats(0, 20),
    top=st.integers(1, 8),
    which=st.sampled_from(["top", "all"]),
    minimum=st.integers(0, 3),
    seed=st.integers(0, 10**6),
)
def test_counts_and_scores(
    heads: int, keys: int, lambda_: float, top: int, which: Literal["top", "all"], minimum: int, seed: int
) -> None:
    attention, mask = numbers(3, heads, keys, seed=seed), numbers(3, keys, seed=seed + 1) > 0.3
    counts, scores = adaptive_counts(attention, mask, lambda_, top_heads=top, heads=which, minimum=minimum)
    assert counts.dtype == torch.int64
    for b in range(3):
        visual = [s for s in range(keys) if mask[b, s]]
        vav = [sum(float(attention[b, h, s]) for s in visual) for h in range(heads)]
        best = sorted(range(heads), key=lambda h: (-vav[h], h))[: top if which == "top" else heads]
        wanted = round(lambda_ * sum(vav[h] for h in best))
        assert int(counts[b]) == min(max(wanted, minimum), len(visual))
        for s in range(keys):
            expected = sum(float(attention[b, h, s]) for h in best) if s in visual else 0.0
            assert float(scores[b, s]) == pytest.approx(expected)


def test_each_row_chooses_its_own_heads() -> None:
    attention = torch.tensor([[[0.9, 0.0], [0.0, 0.2]], [[0.1, 0.0], [0.0, 0.8]]])
    counts, scores = adaptive_counts(attention, torch.ones(2, 2).bool(), 2.0, top_heads=1)
    assert counts.tolist() == [2, 2]
    torch.testing.assert_close(scores, torch.tensor([[0.9, 0.0], [0.0, 0.8]]))


def test_huge_lambda_keeps_all_and_zero_keeps_the_minimum() -> None:
    attention, mask = numbers(2, 4, 9), torch.ones(2, 9).bool()
    mask[1, 3:] = False
    assert adaptive_counts(attention, mask, 1e30, top_heads=2)[0].tolist() == [9, 3]
    assert adaptive_counts(attention, mask, 0.0, top_heads=2)[0].tolist() == [1, 1]
    mask[1] = False
    assert adaptive_counts(attention, mask, 5.0, top_heads=2)[0].tolist()[1] == 0


def test_adaptive_counts_refuses() -> None:
    attention, mask = numbers(2, 4, 9), torch.ones(2, 9).bool()
    with pytest.raises(ValueError, match="top_heads=0"):
        adaptive_counts(attention, mask, 1.0, top_heads=0)
    with pytest.raises(ValueError, match="lambda_=-1"):
        adaptive_counts(attention, mask, -1.0, top_heads=1)
    with pytest.raises(ValueError, match="lambda_=nan"):
        adaptive_counts(attention, mask, float("nan"), top_heads=1)
    with pytest.raises(ValueError, match="heads='some'"):
        adaptive_counts(attention, mask, 1.0, top_heads=1, heads="some")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="visual_mask"):
        adaptive_counts(attention, mask[:, :3], 1.0, top_heads=1)


@settings(max_examples=80)
@given(st.integers(1, 40), st.data())
def test_ratios_reach_the_average(num_layers: int, data: st.DataObject) -> None:
    layers = sorted(data.draw(st.lists(st.integers(0, num_layers - 1), min_size=1, max_size=4)))
    smallest = layers[0] / num_layers
    average = smallest + (1 - smallest) * data.draw(st.floats(0.01, 1.0))
    ratios = geometric_ratios(min(average, 1.0), layers, num_layers)
    total = 0.0
    for layer in range(num_layers):
        share = 1.0
        for cut, ratio in zip(layers, ratios, strict=True):
            share = ratio if layer >= cut else share
        total += share
    assert total / num_layers == pytest.approx(min(average, 1.0), abs=1e-9)
    assert all(0 < r <= 1 for r in ratios)
    for i, ratio in enumerate(ratios):
        assert ratio == pytest.approx(ratios[0] ** (i + 1))


def test_ratios_known_and_refused() -> None:
    assert geometric_ratios(1.0, (4, 12, 20), 32) == (1.0, 1.0, 1.0)
    assert geometric_ratios(1.0, (), 8) == ()
    assert geometric_ratios(0.75, (4,), 8) == pytest.approx((0.5,))
    with pytest.raises(ValueError, match=r"average=0\.125.*smallest average reachable is 0\.125"):
        geometric_ratios(0.125, (4, 12, 20), 32)
    for average in (0.0, 1.1, float("nan")):
        with pytest.raises(ValueError, match="average="):
            geometric_ratios(average, (4,), 8)
    with pytest.raises(ValueError, match=r"average=0\.5"):
        geometric_ratios(0.5, (), 8)
    for layers in ((8,), (-1,), (4, 2)):
        with pytest.raises(ValueError, match="layers="):
            geometric_ratios(0.9, layers, 8)


@settings(max_examples=50)
@given(st.floats(0, 1), st.floats(0.2, 3))
def test_solve_lambda_on_a_smooth_measure(share: float, power: float) -> None:
    def measure(value: float) -> float:
        return 5 * value**power

    wanted = share * measure(100.0)
    found = solve_lambda(measure, wanted, low=0.0, high=100.0, tolerance=0.01, max_steps=200)
    assert abs(measure(found) - wanted) <= 0.01


def test_solve_lambda_stops_as_soon_as_it_is_close_enough() -> None:
    calls = []

    def measure(value: float) -> float:
        calls.append(value)
        return float(round(value))

    assert round(solve_lambda(measure, 37.0, low=0.0, high=64.0, tolerance=0.0, max_steps=30)) == 37
    assert len(calls) < 12
    assert len(set(calls)) == len(calls)
    calls.clear()
    assert solve_lambda(measure, 64.0, low=0.0, high=64.0, tolerance=0.5, max_steps=30) == 64.0
    assert calls == [0.0, 64.0]


def test_solve_lambda_refuses() -> None:
    with pytest.raises(ValueError, match=r"wanted=20; allowed: 0 .* to 10"):
        solve_lambda(lambda v: v, 20, low=0.0, high=10.0, tolerance=0.1, max_steps=9)
    with pytest.raises(ValueError, match="nearest: 0 at lambda 0"):
        solve_lambda(lambda v: 0.0 if v < 5 else 10.0, 4, low=0.0, high=10.0, tolerance=0.1, max_steps=9)
    with pytest.raises(ValueError, match="low=3"):
        solve_lambda(lambda v: v, 2, low=3.0, high=1.0, tolerance=0.1, max_steps=9)
