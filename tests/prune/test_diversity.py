"""Ranks, against known matrices."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from videoprune.prune.diversity import effective_rank, numerical_rank


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_singular_values(values: list[float], rows: int, columns: int) -> Tensor:
    left = torch.linalg.qr(numbers(rows, len(values)))[0]
    right = torch.linalg.qr(numbers(columns, len(values), seed=1))[0]
    return left @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ right.T


def test_ranks_follow_the_singular_values() -> None:
    values = [8.0, 4.0, 2.0, 0.5, 0.0001]
    x = with_singular_values(values, 9, 7)
    shares = [v / sum(values) for v in values]
    entropy = -sum(p * math.log(p) for p in shares)
    assert float(effective_rank(x)) == pytest.approx(math.exp(entropy))
    for tol, expected in ((0.0001, 4), (1e-6, 5), (0.1, 3), (0.3, 2), (0.9, 1)):
        assert int(numerical_rank(x, tol)) == expected
    assert int(numerical_rank(x)) == 4
    assert float(effective_rank(10 * x)) == pytest.approx(math.exp(entropy))
    assert int(numerical_rank(10 * x)) == 4


@pytest.mark.parametrize("measure", [effective_rank, numerical_rank])
def test_batches_orders_and_bad_input(measure) -> None:
    x = numbers(2, 3, 5, 4)
    found = measure(x)
    assert found.shape == (2, 3)
    for a in range(2):
        for b in range(3):
            torch.testing.assert_close(found[a, b], measure(x[a, b]))
    torch.testing.assert_close(measure(x.flip(2)), found)
    assert float(measure(torch.zeros(3, 4))) == 0.0
    for shape in ((0, 3), (3, 0), (3,)):
        with pytest.raises(ValueError, match="x: shape"):
            measure(torch.zeros(shape))


def test_numerical_rank_refuses_a_bad_tolerance() -> None:
    for tol in (-0.1, 1.0):
        with pytest.raises(ValueError, match=f"tol={tol}"):
            numerical_rank(numbers(3, 3), tol)
