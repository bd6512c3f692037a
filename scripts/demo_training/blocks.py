"""Attention of many questions about one beginning: each sees the beginning and itself, none sees another.

Shapes: B clips, H heads, K tokens of the beginning, Q tokens of all questions side by side, n questions, m tokens of
the longest, L = K + Q, d head width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, PreTrainedConfig

_NAME = "blocks"


@contextmanager
def attention_by_blocks(config: PreTrainedConfig) -> Iterator[None]:
    """The LLM of this configuration takes `block_ids` as its mask."""
    before = config._attn_implementation
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def block_ids(beginning: int, lengths: Sequence[int]) -> Tensor:
    """What `attend` takes as mask: int64 (L,), 0 in the beginning, i + 1 in question i."""
    return torch.repeat_interleave(torch.arange(len(lengths) + 1), torch.tensor([beginning, *lengths]))


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention of (B, H, L, d), key and value perhaps of fewer heads; -> (B, L, H, d).

    As with a dense mask over all L x L, in K^2 + Q (K + m) products. attention_mask: of `block_ids`.
    """
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    key, value = (t.repeat_interleave(query.shape[1] // t.shape[1], 1) for t in (key, value))
    beginning, *lengths = attention_mask.bincount().tolist()
    q0, k0, v0 = (t[:, :, :beginning] for t in (query, key, value))
    front = F.scaled_dot_product_attention(q0, k0, v0, is_causal=True, scale=scale)
    q, k, v = (t[:, :, beginning:] for t in (query, key, value))
    place, row = _padded(lengths)
    padded = [t[:, :, place] for t in (q, k, v)]  # (B, H, n, m, d)
    later = torch.ones(place.shape[1], place.shape[1], dtype=torch.bool).triu(1).to(q.device)
    own = (padded[0] @ padded[1].mT * scale).masked_fill(later, -torch.inf)  # (B, H, n, m, m)
    weights = torch.cat([q @ k0.mT * scale, own.flatten(2, 3)[:, :, row]], -1).softmax(-1)  # (B, H, Q, K + m)
    within = weights[..., beginning:][:, :, place] @ padded[2]
    back = weights[..., :beginning] @ v0 + within.flatten(2, 3)[:, :, row]
    return torch.cat([front, back], 2).transpose(1, 2), None


def _padded(lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Numbers of the questions' tokens with the last of each said again (n, m), and where each token is there (Q,)."""
    sizes = torch.tensor(lengths)
    column = torch.arange(max(lengths))
    place = (sizes.cumsum(0) - sizes)[:, None] + column.clamp(max=sizes[:, None] - 1)
    return place, (column < sizes[:, None]).flatten().nonzero()[:, 0]


AttentionInterface.register(_NAME, attend)
