"""AIM inside the LLM: scores against loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.prune.rivals.clips import FEW, numbers
from videoprune.prune.rivals.llm import aim_pagerank, aim_scores


def walk(rows: list[list[float]], start: list[float], iterations: int) -> list[float]:
    score = start
    for _ in range(iterations):
        score = [sum(score[j] * rows[j][i] for j in range(len(rows))) for i in range(len(rows))]
    return score


@FEW
@given(st.integers(1, 6), st.integers(0, 3), st.integers(1, 6), st.integers(0, 10**6))
def test_pagerank(tokens: int, padding: int, iterations: int, seed: int) -> None:
    attention = numbers(1, tokens + padding, tokens + padding, seed=seed).softmax(dim=2)
    valid = torch.arange(tokens + padding)[None] >= padding
    start = [0.0] * padding + [1 / tokens] * tokens
    expected = walk(attention[0].tolist(), start, iterations)
    assert aim_pagerank(attention, valid, iterations=iterations)[0].tolist() == pytest.approx(expected)


def test_pagerank_of_known_graphs() -> None:
    all_ = torch.ones(1, 3, dtype=torch.bool)
    chain = torch.tensor([[[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]])
    torch.testing.assert_close(aim_pagerank(chain, all_, iterations=1), torch.tensor([[0.0, 1.0, 2.0]]) / 3)
    swap = torch.tensor([[[0.5, 0.5], [0.25, 0.75]]])
    torch.testing.assert_close(aim_pagerank(swap, all_[:, :2], iterations=50), torch.tensor([[1.0, 2.0]]) / 3)


@FEW
@given(st.integers(1, 5), st.integers(0, 2), st.sampled_from([(1, 1), (4, 2), (3, 1)]), st.integers(0, 10**6))
def test_aim_scores(tokens: int, padding: int, heads: tuple[int, int], seed: int) -> None:
    """Loops over heads, queries and keys in float64: a sharpened causal softmax, five steps, root mean square."""
    n, width, scale = tokens + padding, 3, 0.2
    q, k = numbers(1, heads[0], n, width, seed=seed), numbers(1, heads[1], n, width, seed=seed + 1)
    valid = torch.arange(n)[None] >= padding
    squares = [0.0] * n
    for head in range(heads[0]):
        rows = [[0.0] * n for _ in range(n)]
        for i in range(padding, n):
            own = q[0, head, i].tolist()
            keys = [k[0, head // (heads[0] // heads[1]), j].tolist() for j in range(padding, i + 1)]
            logits = [sum(a * b for a, b in zip(own, key, strict=True)) * scale / 0.1 for key in keys]
            powers = [math.exp(x - max(logits)) for x in logits]
            rows[i][padding : i + 1] = [p / sum(powers) for p in powers]
        start = [0.0] * padding + [1 / tokens] * tokens
        squares = [s + r**2 for s, r in zip(squares, walk(rows, start, 5), strict=True)]
    found = aim_scores(q, k, scale=scale, valid=valid)[0].tolist()
    assert found == pytest.approx([(s / heads[0]) ** 0.5 for s in squares], rel=1e-3, abs=1e-6)


def test_half_precision_is_summed_in_float32() -> None:
    attention = torch.full((8, 3, 3), 0.1, dtype=torch.bfloat16)
    valid = torch.ones(8, 3, dtype=torch.bool)
    assert aim_pagerank(attention, valid).dtype == torch.float32
    assert aim_scores(attention[None], attention[None], scale=1.0, valid=valid[:1]).dtype == torch.float32


def test_refusals() -> None:
    valid = torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"attention \(1, 2, 3\), valid \(1, 2\); allowed: \(B, S, S\)"):
        aim_pagerank(torch.zeros(1, 2, 3), valid)
    with pytest.raises(ValueError, match="iterations=0"):
        aim_pagerank(torch.ones(1, 2, 2), valid, iterations=0)
    with pytest.raises(ValueError, match="k has 2 heads; allowed: a divisor of the queries' 3"):
        aim_scores(torch.ones(1, 3, 2, 4), torch.ones(1, 2, 2, 4), scale=1.0, valid=valid)
