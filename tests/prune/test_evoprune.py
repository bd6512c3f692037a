"""EvoPrune's matching, against a loop over all pairs."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from videoprune.prune.evoprune import bipartite_plan
from videoprune.prune.merge import apply_plan, merged_size
from videoprune.types import KeepPlan


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(
        sum(x * x for x in a) * sum(y * y for y in b)
    )


def pairs_oracle(
    tokens: list[list[float]],
    remove: int,
    importance: list[float],
    lambda_div: float,
    lambda_att: float,
    critical: int,
    neighbors: int,
    sign: int,
    first: int,
) -> dict[int, int]:
    """source -> destination of the pairs that merge, as positions."""
    free = list(range(first, len(tokens)))
    top = sorted(free, key=lambda i: (-importance[i], i))[:critical]
    ranked = []
    for i in free[::2]:
        near = sorted((cosine(tokens[i], tokens[m]) for m in free[1::2]), reverse=True)[:neighbors]
        alone = 1 - sum(near) / len(near)
        best = max(free[1::2], key=lambda j: (cosine(tokens[i], tokens[j]), -j))
        score = cosine(tokens[i], tokens[best]) - sign * lambda_div * alone - lambda_att * importance[i]
        ranked.append((i in top, -score, i, best))
    return {i: best for _, _, i, best in sorted(ranked)[:remove]}


def pairs_of(plan: KeepPlan, row: int = 0) -> dict[int, int]:
    keep, into = plan.keep[row].tolist(), plan.into[row].tolist()
    return {i: keep[j] for i, j in enumerate(into) if i not in keep}


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=80)
@given(
    tokens=st.integers(2, 14),
    first=st.integers(0, 2),
    share=st.floats(0, 1),
    lambda_div=st.sampled_from([0.0, 0.1, 1.7]),
    lambda_att=st.sampled_from([0.0, 3.0]),
    critical=st.integers(0, 14),
    neighbors=st.integers(1, 20),
    sign=st.sampled_from([1, -1]),
    seed=st.integers(0, 10**6),
)
def test_same_pairs_as_the_loop(
    tokens: int,
    first: int,
    share: float,
    lambda_div: float,
    lambda_att: float,
    critical: int,
    neighbors: int,
    sign: Literal[1, -1],
    seed: int,
) -> None:
    metric, importance = numbers(2, tokens + first, 4, seed=seed), numbers(2, tokens + first, seed=seed + 1)
    remove = round(share * (tokens // 2))
    plan = bipartite_plan(
        metric,
        remove,
        importance=importance,
        lambda_div=lambda_div,
        lambda_att=lambda_att,
        critical=critical,
        neighbors=neighbors,
        diversity_sign=sign,
        protect_first=first,
    )
    assert plan.num_kept == tokens + first - remove
    for row in range(2):
        expected = pairs_oracle(
            metric[row].tolist(),
            remove,
            importance[row].tolist(),
            lambda_div,
            lambda_att,
            critical,
            neighbors,
            sign,
            first,
        )
        assert pairs_of(plan, row) == expected
        keep = plan.keep[row].tolist()
        assert keep == sorted(set(range(tokens + first)) - set(expected))
        assert plan.into[row, keep].tolist() == list(range(len(keep)))
        assert keep[:first] == list(range(first))


@pytest.mark.parametrize("neighbors", [1, 2, 5])
@pytest.mark.parametrize("sign", [1, -1])
def test_density_decides(neighbors: int, sign: Literal[1, -1]) -> None:
    metric = numbers(4, 20, 4)
    plan = bipartite_plan(metric, 5, lambda_div=1.7, neighbors=neighbors, diversity_sign=sign)
    plain = bipartite_plan(metric, 5, lambda_div=0.0)
    for row in range(4):
        expected = pairs_oracle(metric[row].tolist(), 5, [0.0] * 20, 1.7, 0.0, 0, neighbors, sign, 0)
        assert pairs_of(plan, row) == expected
    if (neighbors, sign) != (1, 1):  # the nearest token mostly is the partner: then the order stays
        assert not torch.equal(plan.into, plain.into)


def test_batch_equals_single() -> None:
    metric, importance = numbers(5, 11, 3), numbers(5, 11, seed=1)
    plan = bipartite_plan(metric, 4, importance=importance, critical=3)
    for b in range(5):
        one = bipartite_plan(metric[b : b + 1], 4, importance=importance[b : b + 1], critical=3)
        assert torch.equal(plan.keep[b], one.keep[0])
        assert torch.equal(plan.into[b], one.into[0])


def test_order_of_a_sides_tokens_does_not_matter() -> None:
    metric = numbers(1, 12, 4)
    even, odd = torch.tensor([3, 0, 5, 1, 4, 2]), torch.tensor([2, 5, 0, 4, 1, 3])
    order = torch.stack((2 * even, 2 * odd + 1), dim=1).flatten()  # new position -> old position
    before = pairs_of(bipartite_plan(metric, 4))
    after = pairs_of(bipartite_plan(metric[:, order], 4))
    assert {int(order[i]): int(order[j]) for i, j in after.items()} == before


def test_ties_go_to_the_earlier_token() -> None:
    metric = torch.eye(2)[[0, 0, 0, 0, 0, 0, 1, 1]][None]  # six alike, two others alike
    assert pairs_of(bipartite_plan(metric, 2, lambda_div=0.0)) == {0: 1, 2: 1}
    assert pairs_of(bipartite_plan(metric, 4, lambda_div=0.0)) == {0: 1, 2: 1, 4: 1, 6: 7}
    assert pairs_of(bipartite_plan(torch.zeros(1, 5, 3), 2)) == {0: 1, 2: 1}


def test_critical_sources_go_last_and_the_count_stays_exact() -> None:
    metric, importance = numbers(1, 8, 4), torch.tensor([[9.0, 0.0, 8.0, 0.0, 7.0, 0.0, -1.0, 0.0]])
    for remove in range(1, 5):
        gone = pairs_of(bipartite_plan(metric, remove, importance=importance, critical=3))
        assert 6 in gone
        assert len(gone) == remove
    # More critical tokens than there are tokens protect all alike: as if none were.
    every = bipartite_plan(metric, 3, importance=importance, critical=100)
    assert pairs_of(every) == pairs_of(bipartite_plan(metric, 3))


def test_sign_decides_whether_lone_tokens_stay() -> None:
    # Source 0 stands alone but for destination 1; source 2 has the same best cosine and many neighbours.
    near = torch.tensor([1.0, 0.02, 0.0, 0.0])
    metric = torch.stack(
        (
            torch.tensor([0.0, 0.0, 1.0, 0.0]),
            torch.tensor([0.0, 0.0, 1.0, 0.0]),
            torch.tensor([1.0, 0.0, 0.0, 0.0]),
            torch.tensor([1.0, 0.0, 0.0, 0.0]),
            near,
            near,
        )
    )[None]
    assert 0 not in pairs_of(bipartite_plan(metric, 2, neighbors=3, lambda_div=0.5, diversity_sign=1))
    assert 0 in pairs_of(bipartite_plan(metric, 1, neighbors=3, lambda_div=0.5, diversity_sign=-1))


def test_importance_may_leave_out_the_protected_tokens() -> None:
    metric, importance = numbers(2, 9, 4), numbers(2, 9, seed=1)
    full = bipartite_plan(metric, 3, importance=importance, critical=2, lambda_att=1.0, protect_first=1)
    short = bipartite_plan(
        metric, 3, importance=importance[:, 1:], critical=2, lambda_att=1.0, protect_first=1
    )
    assert torch.equal(full.into, short.into)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_and_gradients_are_accepted(dtype: torch.dtype) -> None:
    metric = numbers(3, 10, 8).to(dtype).requires_grad_()
    plan = bipartite_plan(metric, 5)
    assert plan.keep.dtype == plan.into.dtype == torch.int64
    x = torch.ones(3, 10, 2, dtype=dtype)
    assert apply_plan(x, plan).shape == (3, 5, 2)
    assert merged_size(torch.ones(3, 10), plan).sum(1).tolist() == [10.0] * 3


def test_nothing_to_remove_is_the_identity() -> None:
    for tokens in (1, 2, 7):
        plan = bipartite_plan(numbers(2, tokens, 3), 0)
        assert plan.keep.tolist() == plan.into.tolist() == [list(range(tokens))] * 2


def test_impossible_requests() -> None:
    metric = numbers(1, 7, 3)
    with pytest.raises(ValueError, match=r"remove=4; allowed: 0\.\.3"):
        bipartite_plan(metric, 4)
    with pytest.raises(ValueError, match=r"remove=3; allowed: 0\.\.2"):
        bipartite_plan(metric, 3, protect_first=2)
    with pytest.raises(ValueError, match="remove=-1"):
        bipartite_plan(metric, -1)
    with pytest.raises(ValueError, match="importance=None; needed for critical=1"):
        bipartite_plan(metric, 1, critical=1)
    with pytest.raises(ValueError, match=r"lambda_att=0\.5"):
        bipartite_plan(metric, 1, lambda_att=0.5)
    with pytest.raises(ValueError, match=r"importance: shape \(1, 5\); allowed: \(1, 7\)"):
        bipartite_plan(metric, 1, importance=torch.ones(1, 5), critical=1)
    with pytest.raises(ValueError, match="protect_first=8"):
        bipartite_plan(metric, 0, protect_first=8)
    with pytest.raises(ValueError, match="neighbors=0"):
        bipartite_plan(metric, 1, neighbors=0)
    with pytest.raises(ValueError, match="diversity_sign=2"):
        bipartite_plan(metric, 1, diversity_sign=2)  # type: ignore[arg-type]
