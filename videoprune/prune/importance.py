"""How much attention each token receives, without ever holding an N x N matrix for all queries.

Fused attention keeps no probabilities, so they are computed again, for the rows that are needed. All results
are at least float32.

Shapes: B rows, H heads, Hq query heads, Hk key heads, N tokens, Q queries, S keys, d head width.
"""

from __future__ import annotations

from functools import reduce

import torch
from einops import rearrange
from torch import Tensor


def attention_received(
    q: Tensor,
    k: Tensor,
    *,
    scale: float,
    bias: Tensor | None = None,
    query_mask: Tensor | None = None,
    chunk: int = 256,
) -> Tensor:
    """Attention that each token receives: column means of softmax(q k^T * scale + bias).

    q: (B, H, Q, d), k: (B, H, N, d). bias: (B, N), added to all logits of a key, such as log(size) of merged
    tokens. query_mask: bool (B, Q), False for rows that do not count; a row of B without any gets zeros.
    chunk: queries at once; memory grows with B * H * chunk * N. Exact for every chunk.
    -> (B, N), the mean over heads and queries.
    """
    _check_heads(q, k, bias)
    if chunk < 1:
        raise ValueError(f"chunk={chunk}; allowed: 1 or more")
    dtype = torch.promote_types(q.dtype, torch.float32)
    batch, heads, queries, _ = q.shape
    weight = _query_weight(q, query_mask)  # (B, Q)
    received = torch.zeros(batch, k.shape[2], dtype=dtype, device=q.device)
    for start in range(0, queries, chunk):
        rows = slice(start, start + chunk)
        attention = _softmax_rows(q[:, :, rows], k, scale, bias)  # (B, H, chunk, N)
        received += (weight[:, None, None, rows] @ attention).sum(dim=(1, 2))
    return received / (heads * weight.sum(dim=1, keepdim=True)).clamp(min=1)


def cls_attention(
    q: Tensor, k: Tensor, *, scale: float, num_prefix: int = 1, bias: Tensor | None = None
) -> Tensor:
    """Attention that the CLS token, row 0, pays to the tokens after the prefix, mean over heads.

    q, k: (B, H, N, d). num_prefix: CLS and register tokens at the start; they share in the softmax and are
    left out of the result. -> (B, N - num_prefix), which sums to less than 1.
    """
    _check_heads(q, k, bias)
    if not 1 <= num_prefix <= k.shape[2]:
        raise ValueError(f"num_prefix={num_prefix}; allowed: 1..{k.shape[2]}, the number of tokens")
    return _softmax_rows(q[:, :, :1], k, scale, bias).mean(dim=(1, 2))[:, num_prefix:]


def text_to_visual_attention(
    q_text: Tensor,
    k: Tensor,
    *,
    scale: float,
    query_positions: Tensor,
    key_positions: Tensor,
    key_mask: Tensor,
    query_mask: Tensor,
    visual_mask: Tensor,
    chunk: int = 64,
) -> Tensor:
    """Attention that the text pays to each visual token, by head (METEOR, arXiv 2507.20842, stage 3).

    The causal softmax runs over all keys, for the text rows only, and is averaged over the valid ones.
    q_text: (B, Hq, Q, d), the text rows' queries. k: (B, Hk, S, d); Hk divides Hq (grouped heads), keys are
    not repeated. query_positions (B, Q), key_positions (B, S): int64, order in the sequence; a query sees
    keys at or before it. key_mask (B, S), query_mask (B, Q): bool, False at padding. visual_mask: bool (B,
    S). chunk: queries at once.
    -> (B, Hq, S), zero outside visual keys, and for rows without a valid query.
    """
    batch, q_heads, queries, _ = q_text.shape
    k_heads, keys = k.shape[1:3]
    if k_heads == 0 or q_heads % k_heads:
        raise ValueError(f"k has {k_heads} heads; allowed: a divisor of the queries' {q_heads}")
    _check_shapes((batch, queries), query_positions=query_positions, query_mask=query_mask)
    _check_shapes((batch, keys), key_positions=key_positions, key_mask=key_mask, visual_mask=visual_mask)
    if chunk < 1:
        raise ValueError(f"chunk={chunk}; allowed: 1 or more")
    dtype = torch.promote_types(q_text.dtype, torch.float32)
    grouped = rearrange(q_text, "b (k g) q d -> b k g q d", k=k_heads)  # the g query heads of a key head
    k_t = k.to(dtype).transpose(2, 3)  # (B, Hk, d, S)
    parts = []
    for start in range(0, queries, chunk):
        rows = slice(start, start + chunk)
        seen = key_mask[:, None] & (key_positions[:, None] <= query_positions[:, rows, None])  # (B, chunk, S)
        counts = (query_mask[:, rows] & seen.any(dim=2)).to(dtype)  # a query that sees nothing pays nothing
        part = grouped[:, :, :, rows].to(dtype) * scale
        logits = rearrange(part, "b k g q d -> b k (g q) d") @ k_t
        logits = rearrange(logits, "b k (g q) s -> b k g q s", q=part.shape[3])
        logits.masked_fill_(~seen[:, None, None], torch.finfo(dtype).min)
        parts.append((counts[:, None, None, None] @ logits.softmax(dim=-1)).squeeze(3))
    if not parts:
        return k.new_zeros(batch, q_heads, keys, dtype=dtype)
    mean = reduce(torch.add, parts).flatten(1, 2) / query_mask.sum(dim=1).clamp(min=1)[:, None, None]
    return mean.where(visual_mask[:, None], 0.0)


def _softmax_rows(q: Tensor, k: Tensor, scale: float, bias: Tensor | None) -> Tensor:
    """softmax(q k^T * scale + bias) for the given query rows: (B, H, Q, d), (B, H, N, d) -> (B, H, Q, N)."""
    dtype = torch.promote_types(q.dtype, torch.float32)
    logits = (q.to(dtype) * scale) @ k.to(dtype).transpose(2, 3)
    if bias is not None:
        logits = logits + bias.to(dtype)[:, None, None]
    return logits.softmax(dim=-1)


def _query_weight(q: Tensor, query_mask: Tensor | None) -> Tensor:
    """1 for each query row that counts, 0 for the others: (B, Q)."""
    shape = (q.shape[0], q.shape[2])
    dtype = torch.promote_types(q.dtype, torch.float32)
    if query_mask is None:
        return torch.ones(shape, dtype=dtype, device=q.device)
    _check_shapes(shape, query_mask=query_mask)
    return query_mask.to(dtype)


def _check_heads(q: Tensor, k: Tensor, bias: Tensor | None) -> None:
    if q.ndim != 4 or k.ndim != 4 or q.shape[:2] != k.shape[:2] or q.shape[3] != k.shape[3]:
        raise ValueError(f"q {tuple(q.shape)}, k {tuple(k.shape)}; allowed: (B, H, Q, d) and (B, H, N, d)")
    if bias is not None:
        _check_shapes((k.shape[0], k.shape[2]), bias=bias)


def _check_shapes(shape: tuple[int, int], **tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name}: shape {tuple(tensor.shape)}; allowed: {shape}")
