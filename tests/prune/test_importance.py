"""Attention scores, against a loop over single logits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from videoprune.prune.importance import (
    attention_received,
    causal_bias,
    cls_attention,
    query_weight,
    text_to_visual_attention,
)

SCALE = 0.7


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def softmax_row(
    query: Tensor, keys: Tensor, bias: list[float], seen: list[bool] | None = None
) -> list[float]:
    """Attention of one query (d,) over keys (N, d), zero at unseen keys."""
    weights = []
    for j in range(keys.shape[0]):
        logit = SCALE * sum(float(a) * float(b) for a, b in zip(query, keys[j], strict=True)) + bias[j]
        weights.append(math.exp(logit) if seen is None or seen[j] else 0.0)
    total = sum(weights)
    return [w / total if total else 0.0 for w in weights]


def received_oracle(q: Tensor, k: Tensor, bias: Tensor, rows: list[list[int]]) -> Tensor:
    """Mean over heads and over the query rows listed for each b."""
    batch, heads, _, _ = q.shape
    out = torch.zeros(batch, k.shape[2], dtype=torch.float64)
    for b in range(batch):
        for h in range(heads):
            for i in rows[b]:
                row = softmax_row(q[b, h, i], k[b, h], bias[b].tolist())
                out[b] += torch.tensor(row, dtype=torch.float64) / (heads * len(rows[b]))
    return out


@pytest.mark.parametrize("chunk", [1, 3, 7, 256])
def test_attention_received_is_exact_for_every_chunk(chunk: int) -> None:
    q, k, bias = numbers(2, 3, 7, 4), numbers(2, 3, 5, 4, seed=1), numbers(2, 5, seed=2)
    every = [list(range(7))] * 2
    found = attention_received(q, k, scale=SCALE, bias=bias, chunk=chunk)
    torch.testing.assert_close(found, received_oracle(q, k, bias, every))
    torch.testing.assert_close(found.sum(1), torch.ones(2, dtype=torch.float64))
    plain = attention_received(q, k, scale=SCALE, chunk=chunk)
    torch.testing.assert_close(plain, received_oracle(q, k, torch.zeros(2, 5), every))
    mask = torch.tensor([[1, 0, 0, 1, 0, 0, 1], [0, 0, 0, 0, 0, 1, 0]]).bool()
    found = attention_received(q, k, scale=SCALE, bias=bias, query_mask=mask, chunk=chunk)
    torch.testing.assert_close(found, received_oracle(q, k, bias, [[0, 3, 6], [5]]))


def test_a_row_without_queries_receives_nothing() -> None:
    q = numbers(2, 1, 3, 2)
    mask = torch.tensor([[True, True, True], [False, False, False]])
    found = attention_received(q, q, scale=SCALE, query_mask=mask)
    assert found[1].tolist() == [0.0] * 3


def test_log_size_bias_stands_for_repeated_tokens() -> None:
    q, k = numbers(1, 2, 6, 4), numbers(1, 2, 3, 4, seed=1)
    repeated = attention_received(q, k[:, :, [0, 1, 1, 1, 2]], scale=SCALE)[0]
    merged = attention_received(q, k, scale=SCALE, bias=torch.tensor([[1.0, 3.0, 1.0]]).log())[0]
    torch.testing.assert_close(merged, torch.stack((repeated[0], repeated[1:4].sum(), repeated[4])))


@pytest.mark.parametrize("prefix", [1, 3, 5])
def test_cls_attention_is_row_zero_without_the_prefix(prefix: int) -> None:
    q, k, bias = numbers(2, 2, 5, 3), numbers(2, 2, 5, 3, seed=1), numbers(2, 5, seed=2)
    found = cls_attention(q, k, scale=SCALE, num_prefix=prefix, bias=bias)
    torch.testing.assert_close(found, received_oracle(q, k, bias, [[0], [0]])[:, prefix:])


def test_low_precision_is_computed_in_float32() -> None:
    q, k = numbers(1, 2, 9, 4).bfloat16(), numbers(1, 2, 9, 4, seed=1).bfloat16()
    for score in (attention_received, cls_attention):
        found = score(q, k, scale=SCALE)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, score(q.double(), k.double(), scale=SCALE).float())


def test_permuted_keys_permute_the_scores() -> None:
    q, k = numbers(1, 2, 4, 3), numbers(1, 2, 6, 3, seed=1)
    order = torch.tensor([5, 2, 0, 1, 4, 3])
    moved = attention_received(q, k[:, :, order], scale=SCALE)
    torch.testing.assert_close(moved, attention_received(q, k, scale=SCALE)[:, order])


def test_wrong_shapes() -> None:
    q = numbers(2, 2, 5, 3)
    with pytest.raises(ValueError, match=r"allowed: \(B, H, Q, d\)"):
        attention_received(q, numbers(2, 3, 5, 3), scale=SCALE)
    with pytest.raises(ValueError, match=r"bias: shape \(2, 4\); allowed: \(2, 5\)"):
        attention_received(q, q, scale=SCALE, bias=torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"query_mask: shape \(2, 4\)"):
        attention_received(q, q, scale=SCALE, query_mask=torch.ones(2, 4).bool())
    with pytest.raises(ValueError, match="chunk=0"):
        attention_received(q, q, scale=SCALE, chunk=0)
    with pytest.raises(ValueError, match=r"num_prefix=6; allowed: 1\.\.5"):
        cls_attention(q, q, scale=SCALE, num_prefix=6)


# Text to visual: two rows, three text queries, seven keys; row 1 is padded on the left.
Q_POSITIONS = torch.tensor([[4, 5, 6], [0, 5, 6]])
K_POSITIONS = torch.tensor([[0, 1, 2, 3, 4, 5, 6], [0, 0, 2, 3, 4, 5, 6]])
K_MASK = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1, 1]]).bool()
Q_MASK = torch.tensor([[1, 1, 1], [0, 1, 1]]).bool()
VISUAL = torch.tensor([[0, 1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 0, 0, 0]]).bool()
BIAS = causal_bias(3, 7).where(K_MASK[:, None], torch.finfo(torch.float32).min)


def text_oracle(q: Tensor, k: Tensor) -> Tensor:
    batch, q_heads, queries, _ = q.shape
    out = torch.zeros(batch, q_heads, k.shape[2], dtype=torch.float64)
    for b in range(batch):
        valid = [i for i in range(queries) if Q_MASK[b, i]]
        for h in range(q_heads):
            keys = k[b, h // (q_heads // k.shape[1])]
            for i in valid:
                seen = [bool(K_MASK[b, j] and K_POSITIONS[b, j] <= Q_POSITIONS[b, i]) for j in range(7)]
                row = softmax_row(q[b, h, i], keys, [0.0] * 7, seen)
                for j in range(7):
                    out[b, h, j] += row[j] / len(valid) if VISUAL[b, j] else 0.0
    return out


@pytest.mark.parametrize("chunk", [1, 2, 64])
@pytest.mark.parametrize("key_heads", [1, 2, 6])
def test_text_to_visual_attention(chunk: int, key_heads: int) -> None:
    q, k = numbers(2, 6, 3, 4), numbers(2, key_heads, 7, 4, seed=1)
    found = text_to_visual_attention(
        q, k, scale=SCALE, bias=BIAS, weight=query_weight(Q_MASK), visual_mask=VISUAL, chunk=chunk
    )
    torch.testing.assert_close(found, text_oracle(q, k))


@pytest.mark.parametrize("layout", ["as made", "tokens before heads"])
def test_one_bias_for_all_rows(layout: str) -> None:
    q, k = numbers(2, 6, 3, 4), numbers(2, 2, 7, 4, seed=1)
    if layout == "tokens before heads":  # as a layer's projections give them
        q, k = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k))
    weight = query_weight(torch.ones(2, 3).bool())
    every = torch.ones(2, 7).bool()
    found = text_to_visual_attention(
        q, k, scale=SCALE, bias=causal_bias(3, 7), weight=weight, visual_mask=every
    )
    for b in range(2):
        for h in range(6):
            rows = [
                softmax_row(q[b, h, i], k[b, h // 3], [0.0] * 7, [j <= 4 + i for j in range(7)])
                for i in range(3)
            ]
            expected = torch.tensor(rows, dtype=torch.float64).mean(0)
            torch.testing.assert_close(found[b, h], expected)


def test_rows_without_a_question_get_zeros() -> None:
    q, k = numbers(2, 2, 2, 3), numbers(2, 1, 4, 3, seed=1)
    found = text_to_visual_attention(
        q,
        k,
        scale=SCALE,
        bias=causal_bias(2, 4),
        weight=query_weight(torch.tensor([[True, True], [False, False]])),
        visual_mask=torch.ones(2, 4).bool(),
    )
    torch.testing.assert_close(found[0].sum(1), torch.ones(2, dtype=torch.float64))
    assert found[1].eq(0).all()


def test_text_attention_refuses_wrong_shapes() -> None:
    def call(
        q_heads: int = 4,
        bias: Tensor = BIAS,
        q_mask: Tensor = Q_MASK,
        visual: Tensor = VISUAL,
        chunk: int = 64,
    ) -> Tensor:
        q, k = numbers(2, q_heads, 3, 4), numbers(2, 2, 7, 4)
        weight = query_weight(q_mask)
        return text_to_visual_attention(
            q, k, scale=SCALE, bias=bias, weight=weight, visual_mask=visual, chunk=chunk
        )

    assert call().shape == (2, 4, 7)
    with pytest.raises(ValueError, match="k has 2 heads"):
        call(q_heads=3)
    with pytest.raises(ValueError, match=r"bias: shape \(2, 3, 6\)"):
        call(bias=BIAS[:, :, 1:])
    with pytest.raises(ValueError, match="weight: shape"):
        call(q_mask=Q_MASK[:, :2])
    with pytest.raises(ValueError, match="visual_mask: shape"):
        call(visual=VISUAL[:, :2])
    with pytest.raises(ValueError, match="chunk=0"):
        call(chunk=0)
