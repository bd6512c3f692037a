"""Controls: exact counts, no repeats, even spread."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from videoprune.prune.controls import evenly_spaced, random_plan, uniform_grid_plan, uniform_plan
from videoprune.types import KeepPlan

FEW = settings(max_examples=80)


def check(plan: KeepPlan, batch: int, tokens: int, keep: int) -> None:
    assert plan.keep.shape == (batch, keep)
    for row, into in zip(plan.keep.tolist(), plan.into.tolist(), strict=True):
        assert row == sorted(set(row))
        assert into == [row.index(i) if i in row else -1 for i in range(tokens)]


@FEW
@given(st.integers(1, 3), st.integers(1, 30), st.data())
def test_counts_are_exact(batch: int, tokens: int, data: st.DataObject) -> None:
    keep = data.draw(st.integers(0, tokens))
    check(random_plan(batch, tokens, keep, generator=torch.Generator()), batch, tokens, keep)
    check(uniform_plan(batch, tokens, keep), batch, tokens, keep)


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
@pytest.mark.parametrize("columns", [1, 2, 5, 9])
def test_grid_counts_are_exact(rows: int, columns: int) -> None:
    for keep in range(rows * columns + 1):
        check(uniform_grid_plan(2, rows, columns, keep), 2, rows * columns, keep)


@FEW
@given(st.integers(1, 60), st.data())
def test_uniform_tokens_are_middles_of_equal_stretches(tokens: int, data: st.DataObject) -> None:
    keep = data.draw(st.integers(1, tokens))
    chosen = uniform_plan(1, tokens, keep).keep[0].tolist()
    for i, position in enumerate(chosen):
        assert i * tokens / keep - 1 < position < (i + 1) * tokens / keep
    gaps = {b - a for a, b in pairwise(chosen)}
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_known_plans() -> None:
    assert evenly_spaced(10, 5) == [1, 3, 5, 7, 9]
    assert evenly_spaced(7, 1) == [3]
    assert uniform_grid_plan(1, 4, 4, 4).keep.tolist() == [[5, 7, 13, 15]]  # rows 1, 3 x columns 1, 3
    assert uniform_plan(1, 16, 4).keep.tolist() == [[2, 6, 10, 14]]  # one column only
    assert uniform_grid_plan(1, 1, 8, 4).keep.tolist() == [[1, 3, 5, 7]]
    assert uniform_grid_plan(1, 8, 1, 4).keep.tolist() == [[1, 3, 5, 7]]
    assert uniform_grid_plan(1, 3, 3, 9).keep.tolist() == [list(range(9))]


def test_random_repeats_with_its_seed_and_differs_between_rows() -> None:
    one = random_plan(2, 50, 25, generator=torch.Generator().manual_seed(1))
    two = random_plan(2, 50, 25, generator=torch.Generator().manual_seed(1))
    other = random_plan(2, 50, 25, generator=torch.Generator().manual_seed(2))
    assert torch.equal(one.keep, two.keep)
    assert not torch.equal(one.keep, other.keep)
    assert not torch.equal(one.keep[0], one.keep[1])


def test_random_reaches_every_token_about_equally_often() -> None:
    plan = random_plan(4000, 8, 2, generator=torch.Generator().manual_seed(0))
    times = torch.bincount(plan.keep.flatten(), minlength=8)
    assert times.min() > 850  # 1000 expected, standard deviation 27
    assert times.max() < 1150


def test_refusals() -> None:
    for keep in (-1, 7):
        with pytest.raises(ValueError, match=rf"keep={keep}; allowed: 0\.\.6"):
            random_plan(1, 6, keep, generator=None)
        with pytest.raises(ValueError, match=rf"keep={keep}; allowed: 0\.\.6"):
            uniform_plan(1, 6, keep)
        with pytest.raises(ValueError, match=rf"keep={keep}; allowed: 0\.\.6"):
            uniform_grid_plan(1, 2, 3, keep)
