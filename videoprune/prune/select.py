"""From scores to plans: keep the highest. Ties go to the earlier token, so results repeat exactly.

Shapes: B rows, N tokens, K kept tokens, G groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from videoprune.prune.merge import drop_others
from videoprune.types import KeepPlan


def top_k_plan(scores: Tensor, k: int) -> KeepPlan:
    """Keep the `k` tokens of each row with the highest scores (B, N); the others are dropped.

    Raises ValueError if `k` is not in 0..N.
    """
    tokens = scores.shape[1]
    if not 0 <= k <= tokens:
        raise ValueError(f"k={k}; allowed: 0..{tokens}, the number of tokens")
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
    return drop_others(order.sort(dim=1).values, tokens)


def top_k_per_group(scores: Tensor, group: Tensor, counts: Sequence[int]) -> KeepPlan:
    """Keep the counts[g] highest-scored tokens of every group g: encoders or frames, each for itself.

    scores: (B, N). group: int64 (N,), 0..G - 1 for G = len(counts).
    -> plan with K = sum(counts), ascending over all groups together.
    Raises ValueError if a token has no group, or a count is below 0 or above its group's tokens.
    """
    tokens = scores.shape[1]
    if tuple(group.shape) != (tokens,):
        raise ValueError(f"group: shape {tuple(group.shape)}; allowed: {(tokens,)}")
    sizes = torch.bincount(group, minlength=len(counts)).tolist() if tokens else [0] * len(counts)
    if len(sizes) != len(counts):
        raise ValueError(f"group: {len(sizes)} groups; allowed: at most {len(counts)}, as counts has")
    for g, (count, size) in enumerate(zip(counts, sizes, strict=True)):
        if not 0 <= count <= size:
            raise ValueError(f"counts[{g}]={count}; allowed: 0..{size}, the group's tokens")
    order = scores.argsort(dim=1, descending=True, stable=True)
    order = order.gather(1, group[order].argsort(dim=1, stable=True))  # group by group, best first in each
    starts = accumulate(sizes, initial=0)
    columns = [start + i for start, count in zip(starts, counts, strict=False) for i in range(count)]
    keep = order[:, torch.tensor(columns, dtype=torch.int64, device=order.device)]
    return drop_others(keep.sort(dim=1).values, tokens)


def top_k_mask(scores: Tensor, counts: Tensor, mask: Tensor) -> Tensor:
    """Keep a count of its own in every row: the counts[b] highest scores among the True tokens.

    scores: (B, N). counts: int64 (B,). mask: bool (B, N).
    -> bool (B, N), True at what stays. Raises ValueError if a count is below 0 or above its row's True tokens.
    """
    batch, tokens = scores.shape
    if tuple(counts.shape) != (batch,) or tuple(mask.shape) != (batch, tokens):
        raise ValueError(
            f"counts {tuple(counts.shape)}, mask {tuple(mask.shape)}; "
            f"allowed: {(batch,)} and {(batch, tokens)}"
        )
    if bool(((counts < 0) | (counts > mask.sum(dim=1))).any()):
        raise ValueError(
            f"counts={counts.tolist()}; allowed: 0 up to {mask.sum(dim=1).tolist()}, the masks' tokens"
        )
    return top_mask(scores, counts, mask)


def top_mask(scores: Tensor, counts: Tensor | int, among: Tensor | None = None) -> Tensor:
    """`top_k_mask` without its checks: they would make a GPU wait. For counts known to fit, one for all rows if it is a
    number; among: None: all tokens."""
    if among is not None:  # all others follow those of the lowest score there is
        scores = scores.clamp(min=torch.finfo(scores.dtype).min).masked_fill(~among, -torch.inf)
    return first_mask(scores.argsort(dim=1, descending=True, stable=True), counts, scores.shape[1])


def first_mask(order: Tensor, counts: Tensor | int, tokens: int) -> Tensor:
    """True at the first counts[b] tokens of each row's order: int64 (B, at least max counts) -> bool (B, N)."""
    kept = torch.zeros(order.shape[0], tokens, dtype=torch.bool, device=order.device)
    if isinstance(counts, int):
        return kept.scatter_(1, order[:, :counts], True)
    return kept.scatter_(1, order, torch.arange(order.shape[1], device=order.device) < counts[:, None])
