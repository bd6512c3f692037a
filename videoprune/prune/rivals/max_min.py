"""Greedy max-min diversity: again and again the token that is farthest from all chosen ones.

Shapes: G groups (frames, or one for the whole clip), m tokens of a group, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from videoprune.prune.similarity import unit

ENTRIES = 2**24  # distances held at once: 64 MiB in float32
_BEYOND = 1e4


@torch.no_grad()
def max_min_order(x: Tensor, count: int, weight: Tensor | None = None) -> Tensor:
    """The first `count` tokens of each group in the order in which the greedy search takes them.

    The distance of two tokens is 1 - cosine; a token's score is its distance to the nearest chosen token, at first to
    the nearest other token, times its weight. The highest score is taken next, of equals the earlier.

    x: (G, m, D). weight: (G, m), 0 or more; None: 1 each. -> int64 (G, count).
    Memory: O(G m D) and at most 64 MiB of distances: all m x m of them where they fit, which saves a product with
    all tokens in every step, else in blocks.
    """
    u = unit(x)
    whole = u.shape[0] * u.shape[1] ** 2 <= ENTRIES
    far = _distances(u @ u.transpose(1, 2)) if whole else None  # (G, m, m)
    group, order = torch.arange(u.shape[0], device=u.device), []
    first = _to_nearest_other(u, far)
    distance = torch.full_like(first, torch.inf)  # to the nearest chosen one; minus infinity at the chosen
    for step in range(count):
        score = distance if step else first
        if weight is not None:
            score = (score * weight.to(u.dtype)).where(distance >= 0, -torch.inf)
        latest = score.argmax(dim=1) if step else _first_of_most(score)  # (G,), the first of equals
        order.append(latest)
        distance[group, latest] = -torch.inf
        near = _distances(u @ u[group, latest][:, :, None])[..., 0] if far is None else far[group, latest]
        torch.minimum(distance, near, out=distance)
    return torch.stack(order, 1) if order else first.new_zeros(u.shape[0], 0, dtype=torch.int64)


def _first_of_most(score: Tensor) -> Tensor:
    """The first token of each group with the highest score (G, m), but for rounding: two tokens that are each other's
    nearest tie, and products on some processors give them unlike last digits."""
    most = score.amax(dim=1, keepdim=True)
    return (score >= most - 16 * torch.finfo(score.dtype).eps).int().argmax(dim=1)


def _distances(cosine: Tensor) -> Tensor:
    return (1 - cosine).clamp_(min=0)


def _to_nearest_other(u: Tensor, far: Tensor | None) -> Tensor:
    """The distance of each token to the nearest other: (G, m, D) of length 1 -> (G, m); a lone token is beyond all.

    far: (G, m, m), the distances if they are there.
    """
    groups, tokens, _ = u.shape
    step = max(1, ENTRIES // (groups * tokens))
    found = u.new_empty(groups, tokens)
    for start in range(0, tokens, step):
        rows = torch.arange(start, min(start + step, tokens), device=u.device)
        # (G, rows, m)
        near = _distances(u[:, rows] @ u.transpose(1, 2)) if far is None else far[:, rows].clone()
        near[:, rows - start, rows] = _BEYOND
        found[:, rows] = near.amin(dim=2)
    return found
