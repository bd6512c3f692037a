"""Merging over time and budgets by novelty, against loops in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from videoprune.prune.merge import apply_plan, identity_plan
from videoprune.prune.temporal import frame_counts, novelty, still_counts, stillness, temporal_plan


def cosine(a, b) -> float:
    a, b = a.double(), b.double()
    return float(a @ b / (a.norm() * b.norm()))


def test_stillness_and_novelty_are_cosines_with_the_frame_before():
    x = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    same = stillness(x)
    assert same[0].tolist() == [-1.0] * 3
    for t in range(1, 4):
        for u in range(3):
            assert math.isclose(same[t, u], cosine(x[t, u], x[t - 1, u]), abs_tol=1e-6)
    new = novelty(same)
    for t in range(1, 4):
        mean = sum(1 - cosine(x[t, u], x[t - 1, u]) for u in range(3)) / 3
        assert math.isclose(new[t], mean, abs_tol=1e-6)
    assert new[0] == new[1:].max()
    assert novelty(same[:1]).tolist() == [1.0]


def slow_temporal(x, remove):
    """(T, U) -> for each token the (frame, place) it ends in."""
    frames, tokens = x.shape[:2]
    root = {(0, u): (0, u) for u in range(tokens)}
    for t in range(1, frames):
        ranked = sorted(range(tokens), key=lambda u: (-cosine(x[t, u], x[t - 1, u]), u))
        for place, u in enumerate(ranked):
            root[t, u] = root[t - 1, u] if place < remove[t] else (t, u)
    return root


@settings(max_examples=25)
@given(st.integers(1, 5), st.integers(1, 6), st.data())
def test_temporal_plan_equals_a_slow_one(frames, tokens, data):
    seed = data.draw(st.integers(0, 99))
    x = torch.randn(frames, tokens, 7, generator=torch.Generator().manual_seed(seed))
    remove = [0] + [data.draw(st.integers(0, tokens)) for _ in range(frames - 1)]
    plan = temporal_plan(stillness(x), remove)
    root = slow_temporal(x, remove)
    survivors = [t * tokens + u for (t, u), r in root.items() if r == (t, u)]
    assert plan.keep.tolist() == [sorted(survivors)]
    assert plan.num_kept == frames * tokens - sum(remove)
    for (t, u), (rt, ru) in root.items():
        assert plan.into[0, t * tokens + u] == sorted(survivors).index(rt * tokens + ru)
    if not sum(remove):
        assert torch.equal(plan.into, identity_plan(1, frames * tokens).into)


def test_a_still_video_becomes_its_first_frame():
    one = torch.randn(1, 6, 4)
    x = one.repeat(5, 1, 1)
    plan = temporal_plan(stillness(x), [0, 6, 6, 6, 6])
    assert plan.keep.tolist() == [list(range(6))]
    assert torch.allclose(apply_plan(x.flatten(0, 1)[None], plan)[0], one[0], atol=1e-6)


@settings(max_examples=60)
@given(st.lists(st.floats(0, 2), min_size=1, max_size=12), st.integers(1, 9), st.data())
def test_frame_counts_are_exact_and_in_bounds(weights, capacity, data):
    frames = len(weights)
    total = data.draw(st.integers(frames, frames * capacity))
    levels = data.draw(st.integers(1, 4))
    counts = frame_counts(weights, total, capacity, levels=levels)
    assert sum(counts) == total
    assert all(1 <= c <= capacity for c in counts)
    assert len(set(counts)) <= 2 * levels


def test_frame_counts_follow_novelty():
    counts = frame_counts([0.1, 0.1, 0.8, 0.1], 44, 100, even=0.0)
    assert counts == (4, 4, 32, 4)
    assert frame_counts([0.1, 0.1, 0.8, 0.1], 44, 100, even=1.0) == (11, 11, 11, 11)
    assert frame_counts([0.0, 0.0], 6, 5) == (3, 3)


@settings(max_examples=60)
@given(st.integers(1, 9), st.integers(1, 6), st.integers(1, 5), st.floats(-0.9, 1), st.data())
def test_only_still_tokens_merge_over_time_and_the_stillest_first(frames, units, levels, least, data):
    g = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    still = 2 * torch.rand(frames, units, generator=g) - 1
    still[0] = -1
    most = data.draw(st.integers(0, frames * units))
    counts = still_counts(still, most, least, levels=levels)
    ranked = sorted(((still[t, u].item(), t) for t in range(1, frames) for u in range(units)), reverse=True)
    taken = [t for value, t in ranked[:most] if value >= torch.tensor(least).item()]
    free = [min(taken.count(t), units - 1) for t in range(frames)]  # without levels
    assert counts[0] == 0
    assert all(c <= f for c, f in zip(counts, free, strict=True))
    assert len(set(counts[1:])) <= levels
    assert still_counts(still, most, least, levels=max(1, frames - 1)) == tuple(free)


def test_mistakes_are_named():
    x = torch.randn(2, 3, 4)
    with pytest.raises(ValueError, match=r"remove=\(1, 0\)"):
        temporal_plan(stillness(x), [1, 0])
    with pytest.raises(ValueError, match=r"remove=\(0, 4\); allowed: 2 counts of 0..3"):
        temporal_plan(stillness(x), [0, 4])
    with pytest.raises(ValueError, match=r"even=2"):
        frame_counts([1.0], 1, 3, even=2)
    with pytest.raises(ValueError, match=r"levels=0"):
        frame_counts([1.0], 1, 3, levels=0)
    with pytest.raises(ValueError, match=r"total=9"):
        frame_counts([1.0], 9, 3)
