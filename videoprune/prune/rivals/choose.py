"""Choosing in every frame at once, each frame with a count of its own. Ties go to the earlier token.

Shapes: T frames, n tokens of a frame, d width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from videoprune.prune.controls import evenly_spaced
from videoprune.prune.similarity import unit

_ENTRIES = 2**24  # similarities held at once: 64 MiB in float32


def even_counts(keep: int, frames: int) -> list[int]:
    """`keep` tokens shared by `frames` frames as evenly as can be; the extra ones go to evenly spaced frames."""
    base, more = divmod(keep, frames)
    longer = set(evenly_spaced(frames, more))
    return [base + (t in longer) for t in range(frames)]


def spread_mask(among: Tensor, counts: Tensor) -> Tensor:
    """True at counts[t] of each frame's True tokens, evenly spaced in their order: bool (T, n).

    The i-th chosen of c out of m is number (2 i + 1) m // (2 c), the middle of an equal stretch.
    """
    total = among.sum(dim=1, keepdim=True)  # (T, 1)
    count = counts[:, None]
    number = among.cumsum(dim=1) - 1  # (T, n): of a True token among the True ones
    # number v is chosen if some i has v <= (2 i + 1) m / (2 c) < v + 1: count such i below each bound.
    below = _middles_below(number, count, total)
    return among & (_middles_below(number + 1, count, total) > below)


def _middles_below(bound: Tensor, count: Tensor, total: Tensor) -> Tensor:
    """How many i in 0..count - 1 have (2 i + 1) * total < 2 * count * bound."""
    reach = 2 * count * bound  # 2 i + 1 < reach / total, so i < (reach / total - 1) / 2
    ratio = -(-reach // total.clamp(min=1))  # the smallest integer not below reach / total
    return (ratio // 2).clamp(min=0).minimum(count)


def nearest(metric: Tensor, centres: Tensor) -> Tensor:
    """The centre with the highest cosine to each token, within its frame: int64 (T, n); -1 without any centre.

    metric: (T, n, d). centres: bool (T, n). A centre is its own nearest. A few frames at a time.
    """
    frames, tokens, _ = metric.shape
    step = max(1, _ENTRIES // tokens**2)
    found = torch.empty_like(centres, dtype=torch.int64)
    for start in range(0, frames, step):
        rows = slice(start, start + step)
        u = unit(metric[rows])
        cosine = (u @ u.transpose(1, 2)).masked_fill(~centres[rows, None], -torch.inf)
        found[rows] = cosine.argmax(dim=2)  # the first of equals
    own = torch.arange(tokens, device=metric.device)
    found = own.where(centres, found)
    return found.where(centres.any(dim=1, keepdim=True), -1)


def nearest_others(metric: Tensor, count: int) -> Tensor:
    """The `count` tokens with the highest cosine to each token, others of its frame: int64 (T, n, count).

    metric: (T, n, d); count <= n - 1. A few frames at a time.
    """
    frames, tokens, _ = metric.shape
    step = max(1, _ENTRIES // tokens**2)
    found = torch.empty(frames, tokens, count, dtype=torch.int64, device=metric.device)
    itself = torch.eye(tokens, dtype=torch.bool, device=metric.device)
    for start in range(0, frames, step):
        u = unit(metric[start : start + step])
        cosine = (u @ u.transpose(1, 2)).masked_fill(itself, -torch.inf)
        found[start : start + step] = cosine.topk(count, dim=2).indices
    return found
