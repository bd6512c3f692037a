"""Attention of one LLM layer, computed again from what the layer sees: fused kernels keep no probabilities.

Shapes: B rows, n tokens, W width, H query heads, Hk key heads, d head width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from videoprune.plug.attention import KINDS
from videoprune.prune.importance import text_to_visual_attention


@dataclass(frozen=True)
class LayerInput:
    """A decoder layer and what it computes on: hidden (B, n, W), rope: cos and sin (B, n, r) at the tokens' places."""

    layer: Any
    hidden: Tensor
    rope: tuple[Tensor, Tensor]


def question_tokens(valid: Tensor, visual: Tensor) -> Tensor:
    """The text behind the last visual token of each row, bool (B, n), the last token in any case: a prompt may have
    more before and between (chat headers, timestamps). valid, visual: bool (B, n)."""
    place = torch.arange(valid.shape[1], device=valid.device).expand_as(valid)
    behind = place.masked_fill(~visual, -1).amax(1, keepdim=True)  # (B, 1)
    asks = valid & (place > behind)
    asks[:, -1] = True
    return asks


def text_attention(at: LayerInput, valid: Tensor, visual: Tensor, asks: Tensor | None, rows: int) -> Tensor:
    """Attention by head that the question pays to each visual token, averaged over its tokens: (B, H, n).

    valid, visual: bool (B, n). asks: bool (B, n), which of the last `rows` tokens ask; None: all of them. Exact: the
    softmax runs over all that the layer's tokens see.
    """
    n = at.hidden.shape[1]
    place = torch.arange(n, device=at.hidden.device).expand_as(valid)
    q, k = queries_keys(at, rows)
    return text_to_visual_attention(
        q,
        k,
        scale=scaling(at.layer),
        query_positions=place[:, -rows:],
        key_positions=place,
        key_mask=valid,
        query_mask=torch.ones_like(place[:, -rows:], dtype=torch.bool) if asks is None else asks[:, -rows:],
        visual_mask=visual,
    )


def queries_keys(at: LayerInput, rows: int) -> tuple[Tensor, Tensor]:
    """The layer's own rotated queries of the last `rows` tokens (B, H, rows, d) and all keys (B, Hk, n, d)."""
    attention, (cos, sin) = at.layer.self_attn, at.rope
    x = at.layer.input_layernorm(at.hidden)
    width = attention.head_dim
    q = attention.q_proj(x[:, -rows:]).unflatten(-1, (-1, width))
    k = attention.k_proj(x).unflatten(-1, (-1, width))
    q = attention.q_norm(q) if hasattr(attention, "q_norm") else q
    k = attention.k_norm(k) if hasattr(attention, "k_norm") else k
    return _rotate(q, cos[:, -rows:], sin[:, -rows:]), _rotate(k, cos, sin)


def scaling(layer: Any) -> float:
    """What the layer multiplies its logits by."""
    return getattr(layer.self_attn, "scaling", None) or 1 / math.sqrt(layer.self_attn.head_dim)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x (B, n, H, d) with cos, sin (B, n, r), r <= d rotated widths -> (B, H, n, d)."""
    x = x.transpose(1, 2)
    cos, sin = cos[:, None], sin[:, None]
    turned, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    half = turned.shape[-1] // 2
    swapped = torch.cat([-turned[..., half:], turned[..., :half]], -1)
    found = turned * cos + swapped * sin
    return torch.cat([found, rest], -1) if rest.shape[-1] else found


def attention_kind(language_model: nn.Module) -> str:
    """The text model's attention implementation, as it is set now.

    Raises ValueError for one whose masks cannot differ by layer.
    """
    kind: str = language_model.config._attn_implementation  # type: ignore[union-attr, assignment]
    if kind not in KINDS:
        raise ValueError(f"attn_implementation={kind!r}; allowed for LLM pruning: {', '.join(KINDS)}")
    return kind
