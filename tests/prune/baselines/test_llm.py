"""FastV, PyramidDrop and AIM inside the LLM: scores against loops, schedules against the papers' numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.prune.baselines.clips import FEW, numbers
from videoprune.prune.baselines.llm import (
    aim_pagerank,
    aim_schedule,
    fastv_scores,
    pyramiddrop_counts,
    pyramiddrop_layers,
    pyramiddrop_ratios,
)


@FEW
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6), st.integers(0, 10**6))
def test_fastv(heads: int, queries: int, tokens: int, seed: int) -> None:
    attention = numbers(heads, queries, tokens, seed=seed).softmax(dim=2)
    rows = attention.tolist()
    expected = [sum(rows[h][-1][v] for h in range(heads)) / heads for v in range(tokens)]
    assert fastv_scores(attention).tolist() == pytest.approx(expected)


@FEW
@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 4), st.integers(0, 10**6))
def test_pagerank(heads: int, tokens: int, iterations: int, seed: int) -> None:
    attention = numbers(heads, tokens, tokens, seed=seed).softmax(dim=2)
    rows = attention.tolist()
    score = [1 / tokens] * tokens
    for _ in range(iterations):
        new = [0.0] * tokens
        for i in range(tokens):
            for j in range(tokens):
                new[i] += sum(rows[h][j][i] for h in range(heads)) / heads * score[j]
        score = [s / sum(new) for s in new]
    assert aim_pagerank(attention, iterations=iterations).tolist() == pytest.approx(score)


def test_pagerank_of_known_graphs() -> None:
    once = aim_pagerank(torch.tensor([[[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]]))
    torch.testing.assert_close(once, torch.tensor([0.0, 1.0, 2.0]) / 3)
    swap = torch.tensor([[[0.5, 0.5], [0.25, 0.75]]])
    torch.testing.assert_close(aim_pagerank(swap, iterations=50), torch.tensor([1.0, 2.0]) / 3)


def test_pyramiddrop_as_in_the_paper() -> None:
    assert pyramiddrop_layers(32) == (8, 16, 24)
    assert pyramiddrop_layers(28) == (7, 14, 21)
    assert pyramiddrop_layers(6, stages=3) == (2, 4)
    assert pyramiddrop_ratios() == (0.5, 0.25, 0.125)
    assert pyramiddrop_counts(576) == (288, 144, 72)
    assert pyramiddrop_counts(3) == (1, 1, 1)
    kept = (1.0, *pyramiddrop_ratios())
    assert sum(kept) / 4 == 0.46875  # the average over the depth


def test_aim_schedule() -> None:
    assert aim_schedule(8, 2, 6) == (1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0)
    assert aim_schedule(3, 0, 3) == (1.0, 2 / 3, 1 / 3)


def test_half_precision_is_summed_in_float32() -> None:
    attention = torch.full((8, 3, 3), 0.1, dtype=torch.bfloat16)
    assert fastv_scores(attention).dtype == aim_pagerank(attention).dtype == torch.float32


def test_refusals() -> None:
    for shape in ((3, 4), (1, 0, 4), (1, 4, 0)):
        with pytest.raises(ValueError, match="attention: shape"):
            fastv_scores(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"attention: shape \(1, 2, 3\); allowed: \(H, S, S\)"):
        aim_pagerank(torch.zeros(1, 2, 3))
    with pytest.raises(ValueError, match="iterations=0"):
        aim_pagerank(torch.ones(1, 2, 2), iterations=0)
    with pytest.raises(ValueError, match=r"stages=5; allowed: 1\.\.4"):
        pyramiddrop_layers(4, stages=5)
    with pytest.raises(ValueError, match="lambda_=0"):
        pyramiddrop_ratios(lambda_=0)
    with pytest.raises(ValueError, match="stages=0"):
        pyramiddrop_ratios(stages=0)
    with pytest.raises(ValueError, match="start=4, end=4"):
        aim_schedule(8, 4, 4)
