"""Selection by score, against sorted Python lists."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from videoprune.prune.select import top_k_mask, top_k_per_group, top_k_plan, top_mask

FEW = settings(max_examples=80)
# Few distinct values, so that ties are common.
rows_of_scores = st.integers(1, 9).flatmap(
    lambda n: st.lists(st.lists(st.integers(-2, 2), min_size=n, max_size=n), min_size=1, max_size=3)
)


def best(scores: list[int], among: list[int], count: int) -> list[int]:
    return sorted(sorted(among, key=lambda i: (-scores[i], i))[:count])


@FEW
@given(rows_of_scores, st.data())
def test_top_k(rows: list[list[int]], data: st.DataObject) -> None:
    tokens = len(rows[0])
    k = data.draw(st.integers(0, tokens))
    plan = top_k_plan(torch.tensor(rows, dtype=torch.float32), k)
    for b, scores in enumerate(rows):
        keep = best(scores, list(range(tokens)), k)
        assert plan.keep[b].tolist() == keep
        assert plan.into[b].tolist() == [keep.index(i) if i in keep else -1 for i in range(tokens)]


@FEW
@given(rows_of_scores, st.data())
def test_top_k_per_group(rows: list[list[int]], data: st.DataObject) -> None:
    tokens, groups = len(rows[0]), data.draw(st.integers(1, 4))
    group = data.draw(st.lists(st.integers(0, groups - 1), min_size=tokens, max_size=tokens))
    members = [[i for i in range(tokens) if group[i] == g] for g in range(groups)]
    counts = [data.draw(st.integers(0, len(m))) for m in members]
    plan = top_k_per_group(torch.tensor(rows, dtype=torch.float32), torch.tensor(group), counts)
    for b, scores in enumerate(rows):
        keep = sorted(i for m, count in zip(members, counts, strict=True) for i in best(scores, m, count))
        assert plan.keep[b].tolist() == keep
        assert plan.into[b].tolist() == [keep.index(i) if i in keep else -1 for i in range(tokens)]


@FEW
@given(rows_of_scores, st.data())
def test_one_count_for_all_rows(rows: list[list[int]], data: st.DataObject) -> None:
    tokens = len(rows[0])
    count = data.draw(st.integers(0, tokens))
    scores = torch.tensor(rows, dtype=torch.float32)
    kept = top_mask(scores, count)
    assert torch.equal(kept, top_mask(scores, torch.full((len(rows),), count)))
    for row, places in zip(rows, kept, strict=True):
        assert places.nonzero()[:, 0].tolist() == best(row, list(range(tokens)), count)


@FEW
@given(rows_of_scores, st.data())
def test_top_k_mask(rows: list[list[int]], data: st.DataObject) -> None:
    tokens = len(rows[0])
    mask = [data.draw(st.lists(st.booleans(), min_size=tokens, max_size=tokens)) for _ in rows]
    counts = [data.draw(st.integers(0, sum(m))) for m in mask]
    kept = top_k_mask(torch.tensor(rows, dtype=torch.float32), torch.tensor(counts), torch.tensor(mask))
    for b, scores in enumerate(rows):
        expected = best(scores, [i for i in range(tokens) if mask[b][i]], counts[b])
        assert kept[b].nonzero()[:, 0].tolist() == expected


def test_infinite_scores_do_not_let_masked_tokens_in() -> None:
    scores = torch.tensor([[float("inf"), float("-inf"), float("-inf"), 1.0]])
    mask = torch.tensor([[False, True, True, False]])
    assert torch.equal(top_k_mask(scores, torch.tensor([2]), mask), mask)


def test_refusals() -> None:
    scores = torch.zeros(2, 4)
    for k in (-1, 5):
        with pytest.raises(ValueError, match=rf"k={k}; allowed: 0\.\.4"):
            top_k_plan(scores, k)
    group = torch.tensor([0, 0, 1, 1])
    with pytest.raises(ValueError, match=r"counts\[1\]=3; allowed: 0\.\.2"):
        top_k_per_group(scores, group, [1, 3])
    with pytest.raises(ValueError, match="group: 2 groups; allowed: at most 1"):
        top_k_per_group(scores, group, [1])
    with pytest.raises(ValueError, match="group: shape"):
        top_k_per_group(scores, group[:3], [1, 1])
    ones = torch.ones(2, 4).bool()
    with pytest.raises(ValueError, match=r"counts=\[1, 5\]"):
        top_k_mask(scores, torch.tensor([1, 5]), ones)
    with pytest.raises(ValueError, match=r"counts=\[-1, 2\]"):
        top_k_mask(scores, torch.tensor([-1, 2]), ones)
    with pytest.raises(ValueError, match=r"counts \(3,\)"):
        top_k_mask(scores, torch.tensor([1, 1, 1]), ones)


def test_no_tokens_at_all() -> None:
    empty = torch.zeros(2, 0)
    assert top_k_plan(empty, 0).keep.shape == (2, 0)
    assert top_k_per_group(empty, torch.zeros(0).long(), [0, 0]).keep.shape == (2, 0)
    assert top_k_mask(empty, torch.zeros(2).long(), empty.bool()).shape == (2, 0)
