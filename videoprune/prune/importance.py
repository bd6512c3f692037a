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
    bias: Tensor,
    weight: Tensor,
    visual_mask: Tensor,
    chunk: int = 64,
) -> Tensor:
    """Attention that the text pays to each visual token, by head (METEOR, arXiv 2507.20842, stage 3).

    The softmax runs over all keys that a query sees, for the text rows only, which are summed by weight.
    q_text: (B, Hq, Q, d), the text rows' queries. k: (B, Hk, S, d); Hk divides Hq (grouped heads), keys are
    not repeated. bias: (B or 1, Q, S), added to the logits: 0 where a query sees a key, the lowest number elsewhere
    (`causal_bias`). weight: (B, Q), what each query counts (`query_weight`). visual_mask: bool (B, S). chunk: queries
    at once.
    -> (B, Hq, S), zero outside visual keys.
    """
    batch, q_heads, queries, _ = q_text.shape
    k_heads, keys = k.shape[1:3]
    if k_heads == 0 or q_heads % k_heads:
        raise ValueError(f"k has {k_heads} heads; allowed: a divisor of the queries' {q_heads}")
    _check_shapes((batch, queries), weight=weight)
    _check_shapes((batch, keys), visual_mask=visual_mask)
    if tuple(bias.shape) not in ((batch, queries, keys), (1, queries, keys)):
        raise ValueError(
            f"bias: shape {tuple(bias.shape)}; allowed: {(batch, queries, keys)}, or one for all rows"
        )
    if chunk < 1:
        raise ValueError(f"chunk={chunk}; allowed: 1 or more")
    dtype = torch.promote_types(q_text.dtype, torch.float32)
    q = q_text.to(dtype, memory_format=torch.contiguous_format)
    q = rearrange(q, "b (k g) q d -> b k g q d", k=k_heads)  # the g query heads of a key head
    k_t = k.to(dtype).transpose(2, 3)  # (B, Hk, d, S)
    bias, weight = bias.to(dtype), weight.to(dtype)
    parts = []
    for start in range(0, queries, chunk):
        rows = slice(start, start + chunk)
        logits = rearrange(q[:, :, :, rows], "b k g q d -> b k (g q) d") @ k_t
        logits = rearrange(logits, "b k (g q) s -> b k g q s", g=q.shape[2])
        logits = torch.add(bias[:, None, None, rows], logits, alpha=scale)
        parts.append((weight[:, None, None, None, rows] @ logits.softmax(dim=-1)).squeeze(3))
    if not parts:
        return k.new_zeros(batch, q_heads, keys, dtype=dtype)
    return reduce(torch.add, parts).flatten(1, 2) * visual_mask[:, None]


def causal_bias(queries: int, keys: int, device: torch.device | str | None = None) -> Tensor:
    """What hides from each of the last `queries` of a row's tokens those behind it: float32 (1, queries, keys)."""
    low = torch.finfo(torch.float32).min
    return torch.full((1, queries, keys), low, device=device).triu_(keys - queries + 1)


def query_weight(asks: Tensor) -> Tensor:
    """The same for all queries that ask, bool (B, Q), 1 in all; 0 for rows without any: float32 (B, Q)."""
    return asks / asks.sum(dim=1, keepdim=True).clamp(min=1)


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
