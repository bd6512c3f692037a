"""Attention within stretches of a packed sequence: equal ones are stacked, so that one call serves all of them.

Shapes: F frames, n tokens of a frame, N = sum of all n, H heads, d head width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.modeling_flash_attention_utils import _flash_attention_forward

FLASH = ("flash_attention_2", "flash_attention_3")
KINDS = ("sdpa", "eager", *FLASH)  # that can be pruned, in encoders and in the LLM


class KeyBias:
    """What is added to all logits of each key, (N,), in the forms that kernels take; blocks that share it make each
    form once."""

    def __init__(self, values: Tensor) -> None:
        self.values = values  # float32 (N,)
        self._forms: dict[tuple[object, ...], tuple[Tensor, ...]] = {}

    def mask(self, dtype: torch.dtype) -> Tensor:
        """(N,), in the dtype of what attends."""
        return self._form(("mask", dtype), lambda: (self.values.to(dtype),))[0]

    def columns(self, scale: float, dtype: torch.dtype, width: int) -> tuple[Tensor, Tensor]:
        """Columns behind the queries (1, m) and the keys (N, m) whose products are the bias, before the scale.

        A query gets two ones, a key the bias in two parts, so that bfloat16 keeps its first 16 bits, and zeros up to
        the next multiple of 8 from width + 2, as flash kernels want it.
        """

        def made() -> tuple[Tensor, Tensor]:
            wanted = self.values.float() / scale
            high = wanted.to(dtype)
            parts = torch.stack((high, (wanted - high.float()).to(dtype)), 1)  # (N, 2)
            rest = (0, -(width + 2) % 8)
            return F.pad(parts.new_ones(1, 2), rest), F.pad(parts, rest)

        ones, parts = self._form(("columns", scale, dtype, width), made)
        return ones, parts

    def _form(self, key: tuple[object, ...], made: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        if key not in self._forms:
            self._forms[key] = made()
        return self._forms[key]


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Sequence[int],
    *,
    scale: float,
    bias: KeyBias | None = None,
    kind: str = "sdpa",
) -> Tensor:
    """Attention within each of the stretches `lengths` of a packed sequence, in one call.

    q, k, v: (H, N, d). bias: of the N keys. kind: `eager` (spelled out, in float32), `sdpa`, or a
    flash kernel of transformers. Flash kernels take stretches as they are; for the others equal ones are stacked, and
    unequal ones padded to the longest and masked. -> (N, H, d).
    """
    if kind in FLASH:
        return flash(q, k, v, lengths, scale=scale, bias=bias, kind=kind)
    count, longest, width = len(lengths), max(lengths), v.shape[2]
    if min(lengths) == longest:
        if (
            bias is not None and kind == "sdpa" and q.is_cuda
        ):  # there, only calls without a mask get the fastest kernel
            (q, k, v), bias = biased(q, k, v, bias, scale), None
        q, k, v = (t.unflatten(1, (count, longest)).transpose(0, 1) for t in (q, k, v))  # (F, H, n, d)
        mask = None if bias is None else bias.mask(q.dtype).view(count, 1, 1, longest)
        return sdpa(q, k, v, mask, scale, kind)[..., :width].transpose(1, 2).flatten(0, 1)
    n = torch.tensor(lengths, device=q.device)
    place = torch.arange(longest, device=q.device)
    real = place < n[:, None]  # (F, longest)
    index = torch.where(real, (n.cumsum(0) - n)[:, None] + place, 0)
    q, k, v = (t[:, index].transpose(0, 1) for t in (q, k, v))  # (F, H, longest, d)
    low = torch.finfo(q.dtype).min
    padding = torch.zeros(real.shape, dtype=q.dtype, device=q.device).masked_fill_(~real, low)
    if bias is not None:
        padding = torch.where(real, bias.mask(q.dtype)[index], padding)
    out = sdpa(q, k, v, padding[:, None, None], scale, kind)
    return out.transpose(1, 2)[real]


def sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, kind: str = "sdpa") -> Tensor:
    """softmax(q k^T * scale + mask) v for (F, H, n, d); mask, of q's dtype, broadcasts to (F, H, n, n). kind: `sdpa` or
    `eager`."""
    if kind == "eager":
        logits = (q @ k.transpose(2, 3)) * scale
        logits = logits if mask is None else logits + mask
        return logits.softmax(-1, dtype=torch.float32).to(q.dtype) @ v
    if mask is not None:
        mask = mask.expand(-1, -1, q.shape[2], -1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)


def flash(
    q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], *, scale: float, bias: KeyBias | None, kind: str
) -> Tensor:
    """`attend` by a flash kernel, which knows stretches but no bias: (H, N, d) -> (N, H, d)."""
    width, total, longest = v.shape[2], q.shape[1], max(lengths)
    if bias is not None:
        q, k, v = biased(q, k, v, bias, scale)
    edges = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=q.device)
    q, k, v = (t.transpose(0, 1)[None] for t in (q, k, v))  # (1, N, H, d)
    out: Tensor = _flash_attention_forward(
        q,
        k,
        v,
        attention_mask=None,
        query_length=total,
        is_causal=False,
        softmax_scale=scale,
        cu_seq_lens_q=edges,  # type: ignore[arg-type]
        cu_seq_lens_k=edges,  # type: ignore[arg-type]
        max_length_q=longest,
        max_length_k=longest,
        attn_implementation=kind,
    )
    return out[0, ..., :width]


def biased(q: Tensor, k: Tensor, v: Tensor, bias: KeyBias, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Wider q, k, v (H, N, d') whose products hold the bias of each key: q' k'^T * scale = q k^T * scale + bias."""
    columns = bias.columns(scale, k.dtype, q.shape[2])  # (1, m), (N, m)
    q, k = (torch.cat((t, c.expand(*t.shape[:2], -1)), 2) for t, c in zip((q, k), columns, strict=True))
    return q, k, F.pad(v, (0, columns[0].shape[1]))


def additive_mask(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """A bool mask as additive logits of the same shape."""
    bias = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return bias.masked_fill_(~allowed, torch.finfo(dtype).min)


def causal_mask(valid: Tensor, dtype: torch.dtype, queries: int | None = None) -> Tensor:
    """Prefill mask of tokens valid (B, n) as additive logits (B, 1, q, n): earlier and own place, padding never.

    queries: q, of the last tokens; None: of all."""
    n = valid.shape[1]
    q = n if queries is None else queries
    causal = torch.ones(q, n, dtype=torch.bool, device=valid.device).tril(n - q)
    return additive_mask((causal & valid[:, None, :])[:, None], dtype)
