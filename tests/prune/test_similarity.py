"""Cosines and redundancy, against loops over pairs."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from videoprune.prune.similarity import (
    cosine_to_mean,
    cross_encoder_redundancy,
    own_redundancy,
    pairwise_cosine,
    products_of,
    unit,
)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a: Tensor, b: Tensor) -> float:
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(float(x) ** 2 for x in a) * sum(float(y) ** 2 for y in b))


def redundancy_oracle(z: Tensor, encoder: list[int], group: list[int], reduce: str) -> list[float]:
    """One row: z (N, D)."""
    out = []
    for i in range(len(encoder)):
        total = 0.0
        for other in set(encoder) - {encoder[i]}:
            near = [
                cosine(z[i], z[m])
                for m in range(len(encoder))
                if encoder[m] == other and group[m] == group[i]
            ]
            total += sum(near) / (len(near) if reduce == "mean" and near else 1)
        out.append(total)
    return out


def test_pairwise_and_mean_cosine() -> None:
    x, y = numbers(2, 5, 3), numbers(2, 4, 3, seed=1)
    both, own = pairwise_cosine(x, y), pairwise_cosine(x)
    for b in range(2):
        mean = x[b].sum(0) / 5
        for i in range(5):
            assert float(cosine_to_mean(x)[b, i]) == pytest.approx(cosine(x[b, i], mean))
            assert all(float(both[b, i, j]) == pytest.approx(cosine(x[b, i], y[b, j])) for j in range(4))
            assert all(float(own[b, i, j]) == pytest.approx(cosine(x[b, i], x[b, j])) for j in range(5))


def test_zeros_have_similarity_zero() -> None:
    x = torch.zeros(1, 3, 2)
    x[0, 0, 0] = 1.0
    assert pairwise_cosine(x)[0].tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    assert cosine_to_mean(x)[0].tolist() == [1.0, 0.0, 0.0]


def test_low_precision_is_computed_in_float32() -> None:
    x = (300 * numbers(1, 6, 64)).half()  # squares overflow float16
    assert unit(x).dtype == torch.float32
    torch.testing.assert_close(pairwise_cosine(x), pairwise_cosine(x.double()).float())
    torch.testing.assert_close(cosine_to_mean(x), cosine_to_mean(x.double()).float())


@settings(max_examples=30)
@given(
    tokens=st.integers(1, 10),
    encoders=st.integers(1, 3),
    groups=st.integers(1, 3),
    reduce=st.sampled_from(["sum", "mean"]),
    per_row=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_redundancy(
    tokens: int, encoders: int, groups: int, reduce: Literal["sum", "mean"], per_row: bool, seed: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    z = numbers(2, tokens, 3, seed=seed)
    lead = (2, tokens) if per_row else (tokens,)
    encoder = torch.randint(encoders, lead, generator=g)
    group = torch.randint(groups, lead, generator=g)
    grouped = cross_encoder_redundancy(z, encoder, reduce=reduce, group=group)
    alone = cross_encoder_redundancy(z, encoder, reduce=reduce)
    for b in range(2):
        e, f = encoder.expand(2, tokens)[b].tolist(), group.expand(2, tokens)[b].tolist()
        assert grouped[b].tolist() == pytest.approx(redundancy_oracle(z[b], e, f, reduce))
        assert alone[b].tolist() == pytest.approx(redundancy_oracle(z[b], e, [0] * tokens, reduce))


def test_redundancy_follows_a_permutation_of_tokens() -> None:
    z, encoder = numbers(2, 7, 4), torch.tensor([0, 0, 0, 1, 1, 2, 2])
    order = torch.tensor([4, 6, 0, 3, 1, 5, 2])
    moved = cross_encoder_redundancy(z[:, order], encoder[order], reduce="sum")
    torch.testing.assert_close(moved, cross_encoder_redundancy(z, encoder, reduce="sum")[:, order])


def test_one_encoder_has_no_redundancy() -> None:
    assert cross_encoder_redundancy(numbers(2, 5, 3), torch.zeros(5).long(), reduce="sum").eq(0).all()


def test_own_redundancy() -> None:
    z, encoder = numbers(2, 8, 3), torch.tensor([0, 0, 0, 1, 1, 2, 0, 1])
    group = torch.tensor([0, 0, 1, 1, 1, 1, 1, 0])
    for labels in (None, group):
        found = own_redundancy(z, encoder, group=labels)
        cell = list(zip(encoder.tolist(), [0] * 8 if labels is None else labels.tolist(), strict=True))
        for b in range(2):
            for i in range(8):
                near = [cosine(z[b, i], z[b, m]) for m in range(8) if m != i and cell[m] == cell[i]]
                expected = sum(near) / len(near) if near else 0.0
                assert float(found[b, i]) == pytest.approx(expected)


def test_products_of_bfloat16_stay_exact() -> None:
    x, y = (numbers(3, n, 500, seed=n).to(torch.bfloat16) for n in (33, 32))
    switch = getattr(torch.backends.mkldnn, "matmul", None)
    before = getattr(switch, "fp32_precision", None)
    with products_of(x.dtype, x.device):
        found = x.float() @ y.float().transpose(1, 2)
    assert getattr(switch, "fp32_precision", None) == before
    torch.testing.assert_close(found.double(), x.double() @ y.double().transpose(1, 2), atol=1e-4, rtol=0)


def test_products_of_float32_are_not_narrowed() -> None:
    x = numbers(3, 33, 500).float()
    with products_of(x.dtype, x.device):
        found = x @ x.transpose(1, 2)
    assert torch.equal(found, x @ x.transpose(1, 2))


def test_wrong_arguments() -> None:
    z, encoder = numbers(2, 4, 3), torch.zeros(4).long()
    with pytest.raises(ValueError, match=r"encoder: shape \(3,\)"):
        cross_encoder_redundancy(z, encoder[:3], reduce="sum")
    with pytest.raises(ValueError, match=r"group: shape \(5,\)"):
        cross_encoder_redundancy(z, encoder, reduce="sum", group=torch.zeros(5).long())
    with pytest.raises(ValueError, match="reduce='max'"):
        cross_encoder_redundancy(z, encoder, reduce="max")  # type: ignore[arg-type]
