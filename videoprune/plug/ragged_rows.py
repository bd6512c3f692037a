"""Causal attention of rows that are padded on the left, without a mask of all pairs.

A mask of (B, 1, n, n) logits takes 2 GiB in bfloat16 for four rows of 16k tokens, and keeps
`scaled_dot_product_attention` from its fastest kernels. Here each row attends by itself, without its padding.

Shapes: B rows, H heads, n tokens, d head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class RaggedRows(Tensor):
    """What stands in the place of a mask, as `torch.nn.attention.bias.CausalBias` does: the kernel asks it.

    lengths: of each row's tokens, at its right end.
    """

    lengths: tuple[int, ...]

    @staticmethod
    def __new__(cls, lengths: Sequence[int]) -> RaggedRows:
        found: RaggedRows = torch.Tensor._make_subclass(cls, torch.empty(0))
        found.lengths = tuple(lengths)
        return found

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return _by_row(*args, **(kwargs or {}))
        if func is Tensor.to:  # wherever it is sent, it has nothing to bring
            return args[0]
        return super().__torch_function__(func, types, args, kwargs or {})


def _by_row(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: RaggedRows,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """(B, H, n, d), (B, Hk, n, d) -> (B, H, n, d), zeros at padding."""
    rows, tokens = query.shape[0], query.shape[2]
    if key.shape[2] != tokens or rows != len(attn_mask.lengths):
        raise ValueError(
            f"query {tuple(query.shape)}, key {tuple(key.shape)}; allowed: {len(attn_mask.lengths)} rows, as many "
            "queries as keys"
        )
    out = query.new_zeros(*query.shape[:3], value.shape[3])
    for row, length in enumerate(attn_mask.lengths):
        q, k, v = (t[row : row + 1, :, tokens - length :] for t in (query, key, value))
        out[row : row + 1, :, tokens - length :] = F.scaled_dot_product_attention(
            q, k, v, dropout_p=dropout_p, is_causal=True, scale=scale, enable_gqa=enable_gqa
        )
    return out
