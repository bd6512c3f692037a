"""Density and rank, against loops and known matrices."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from videoprune.prune.diversity import effective_rank, local_density, nuclear_diversity, numerical_rank


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a: Tensor, b: Tensor) -> float:
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(float(x) ** 2 for x in a) * sum(float(y) ** 2 for y in b))


def with_singular_values(values: list[float], rows: int, columns: int) -> Tensor:
    left = torch.linalg.qr(numbers(rows, len(values)))[0]
    right = torch.linalg.qr(numbers(columns, len(values), seed=1))[0]
    return left @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ right.T


@pytest.mark.parametrize("neighbors", [1, 3, 5, 20])
def test_local_density(neighbors: int) -> None:
    x = numbers(2, 6, 3)
    found = local_density(x, neighbors)
    for b in range(2):
        for i in range(6):
            near = sorted((cosine(x[b, i], x[b, j]) for j in range(6) if j != i), reverse=True)[:neighbors]
            assert float(found[b, i]) == pytest.approx(sum(near) / len(near))


def test_density_of_a_lone_token_and_of_equal_tokens() -> None:
    assert local_density(numbers(2, 1, 3), 5).tolist() == [[0.0], [0.0]]
    torch.testing.assert_close(local_density(torch.ones(1, 4, 3), 2), torch.ones(1, 4))
    with pytest.raises(ValueError, match="neighbors=0"):
        local_density(numbers(1, 3, 2), 0)


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


def test_nuclear_diversity_at_its_ends() -> None:
    assert float(nuclear_diversity(3 * torch.eye(4))) == pytest.approx(1.0)
    assert float(nuclear_diversity(torch.ones(9, 4))) == pytest.approx(1 / 3)
    wide = torch.cat((torch.eye(3), 5 * torch.eye(3), -torch.eye(3)))
    assert float(nuclear_diversity(wide)) == pytest.approx(math.sqrt(3 / 9))


def test_nuclear_diversity_is_the_sum_of_roots_of_the_gram_matrix() -> None:
    x = numbers(6, 4)
    gram = torch.tensor([[cosine(a, b) for b in x] for a in x], dtype=torch.float64)
    roots = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().sum() / 6
    assert float(nuclear_diversity(x)) == pytest.approx(float(roots))


@pytest.mark.parametrize("measure", [nuclear_diversity, effective_rank, numerical_rank])
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
