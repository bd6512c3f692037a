"""METEOR's first stage, against sorted Python lists."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from videoprune.prune.meteor import cut_blocks, deep_scores, shallow_scores, stage1_plan


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine_to_mean_oracle(tokens: list[list[float]]) -> list[float]:
    mean = [sum(column) / len(tokens) for column in zip(*tokens, strict=True)]
    return [
        sum(a * b for a, b in zip(t, mean, strict=True))
        / math.sqrt(sum(a * a for a in t) * sum(b * b for b in mean))
        for t in tokens
    ]


def test_cuts_fall_at_the_end_of_each_third() -> None:
    assert [cut_blocks(n) for n in (2, 6, 8, 24)] == [(0, 1, 1), (1, 3, 5), (2, 5, 7), (7, 15, 23)]


@pytest.mark.parametrize("keep", [0, 1, 4, 7])
def test_shallow_cut_drops_what_is_like_the_mean(keep: int) -> None:
    x = numbers(3, 7, 4)
    plan = stage1_plan(x, keep)
    for b in range(3):
        cosines = cosine_to_mean_oracle(x[b].tolist())
        assert shallow_scores(x)[b].tolist() == pytest.approx([-c for c in cosines])
        assert plan.keep[b].tolist() == sorted(sorted(range(7), key=lambda i: cosines[i])[:keep])


@pytest.mark.parametrize("keep", [0, 1, 4, 7])
def test_deep_cut_drops_what_gets_little_attention(keep: int) -> None:
    x, attention = numbers(2, 7, 4), numbers(2, 3, 7, seed=1).abs()
    plan = stage1_plan(x, keep, attention=attention)
    for b in range(2):
        mean = [sum(float(attention[b, h, i]) for h in range(3)) / 3 for i in range(7)]
        assert deep_scores(attention)[b].tolist() == pytest.approx(mean)
        assert plan.keep[b].tolist() == sorted(sorted(range(7), key=lambda i: -mean[i])[:keep])
    same = stage1_plan(x, keep, attention=attention.mean(1))
    assert torch.equal(same.keep, plan.keep)


def test_protected_tokens_stay_and_have_no_part_in_the_scores() -> None:
    x, attention = numbers(2, 7, 4), numbers(2, 5, seed=1).abs()
    for scores in (None, attention):
        plan = stage1_plan(x, 5, attention=scores, protect_first=2)
        rest = stage1_plan(x[:, 2:], 3, attention=scores)
        for b in range(2):
            assert plan.keep[b].tolist() == [0, 1, *(i + 2 for i in rest.keep[b].tolist())]
            into = [plan.keep[b].tolist().index(i) if i in plan.keep[b].tolist() else -1 for i in range(7)]
            assert plan.into[b].tolist() == into


def test_refusals() -> None:
    x = numbers(2, 5, 3)
    for keep, first in ((6, 0), (-1, 0), (1, 2)):
        with pytest.raises(ValueError, match=f"keep={keep}, protect_first={first}"):
            stage1_plan(x, keep, protect_first=first)
    with pytest.raises(ValueError, match="attention: scores"):
        stage1_plan(x, 2, attention=torch.ones(2, 4))
    with pytest.raises(ValueError, match="attention: shape"):
        deep_scores(torch.ones(5))
