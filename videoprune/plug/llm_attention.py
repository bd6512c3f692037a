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
from videoprune.prune.importance import causal_bias, query_weight, text_to_visual_attention


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


@dataclass(frozen=True)
class Question:
    """Who asks of the last r tokens that are no draft: the same at every cut, since text stays.

    weight: (B, r), what each counts, 1 in all. bias: (1, r, n), which hides from each what is behind it, for the n
    tokens of the first cut; later ones have fewer, at the left.
    """

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, asks: Tensor, rows: int) -> Question:
        """asks: bool (B, n), none before the last `rows` tokens."""
        return cls(query_weight(asks[:, -rows:]), causal_bias(rows, asks.shape[1], asks.device))

    def attention(self, at: LayerInput, visual: Tensor, valid: Tensor | None, *, last: bool) -> Tensor:
        """Attention by head that the question pays to each visual token, averaged over its tokens: (B, H, n).

        visual, valid: bool (B, n), the second False at padding, None where there is none. last: the last token asks
        alone. Exact: the softmax runs over all that the layer's tokens see.
        """
        n, weight = at.hidden.shape[1], self.weight
        if last:
            weight = weight.new_ones(len(weight), 1)
        bias = self.bias[:, -weight.shape[1] :, -n:]
        if valid is not None:
            bias = bias.where(valid[:, None], torch.finfo(bias.dtype).min)
        q, k = queries_keys(at, weight.shape[1])
        return text_to_visual_attention(
            q, k, scale=scaling(at.layer), bias=bias, weight=weight, visual_mask=visual
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
