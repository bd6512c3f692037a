"""What fades, against loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from videoprune.prune import fade
from videoprune.prune.fade import fade_plan


def tokens(seed: int, count: int, width: int = 6) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@given(seed=st.integers(0, 99), count=st.integers(1, 24), data=st.data())
def test_each_goes_to_the_survivor_most_like_it(seed, count, data):
    keep = data.draw(st.integers(1, count))
    above = data.draw(st.sampled_from([-1.0, 0.2, 0.9]))
    x, seconds = tokens(seed, count), np.sort(np.random.default_rng(seed).uniform(0, 50, count))
    plan = fade_plan(x, seconds, keep, merge_above=above)
    kept = plan.keep[0].tolist()
    assert len(kept) == keep
    assert kept == sorted(set(kept))
    u = x.double() / x.double().norm(dim=1, keepdim=True)
    for i in range(count):
        if i in kept:
            assert plan.into[0, i] == kept.index(i)
            continue
        alike = [float(u[i] @ u[k]) for k in kept]
        best = max(alike)
        if abs(best - above) < 1e-5:
            continue
        found = int(plan.into[0, i])
        assert (found < 0) == (best < above)
        if found >= 0:
            assert alike[found] == pytest.approx(best, abs=1e-5)


def test_a_few_rows_at_a_time_are_all_at_once(monkeypatch):
    x, seconds = tokens(3, 40), np.arange(40.0)
    whole = fade_plan(x, seconds, 9)
    monkeypatch.setattr(fade, "_AT_ONCE", 20)
    parts = fade_plan(x, seconds, 9)
    assert torch.equal(whole.into, parts.into)


def test_copies_go_first_and_what_is_unlike_stays():
    base = torch.eye(6)
    x = torch.cat([base[:1].expand(9, 6), base[1:3], base[:1].expand(9, 6)])
    plan = fade_plan(x, np.arange(20.0), 4, time_weight=0.0)
    assert {9, 10} <= set(plan.keep[0].tolist())


def test_what_never_changes_thins_out_evenly():
    """The same picture all the time: what differs is when."""
    plan = fade_plan(torch.ones(1, 6).expand(600, 6), np.arange(600.0), 60)
    by_minute = np.bincount(plan.keep[0].numpy() // 60, minlength=10)
    assert by_minute.min() >= 2  # rounds of many tokens are not exactly even
    assert by_minute.max() <= 12


def test_time_counts_by_seconds_and_not_by_tokens():
    """Two pictures alike, an hour apart, are both kept before copies of the same minute."""
    seconds = np.array([0.0, 1.0, 2.0, 3.0, 3600.0, 3601.0])
    plan = fade_plan(torch.ones(1, 6).expand(6, 6), seconds, 2)
    first, last = plan.keep[0].tolist()
    assert first <= 3
    assert last >= 4


@pytest.mark.parametrize("keep", [0, 4])
def test_an_impossible_count_is_named(keep):
    with pytest.raises(ValueError, match=rf"keep={keep}; allowed: 1..3"):
        fade_plan(tokens(0, 3), np.arange(3.0), keep)


def test_times_out_of_order_are_named():
    with pytest.raises(ValueError, match=r"seconds=.*; allowed: ascending"):
        fade_plan(tokens(0, 2), np.array([1.0, 0.0]), 1)
