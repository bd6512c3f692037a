"""Greedy max-min diversity: again and again the token that is farthest from all chosen ones.

Shapes: G groups (frames, or one for the whole clip), m tokens of a group, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from videoprune.prune.similarity import unit

_ENTRIES = 2**24  # distances held at once: 64 MiB in float32


def max_min_order(x: Tensor, count: int, weight: Tensor | None = None) -> Tensor:
    """The first `count` tokens of each group in the order in which the greedy search takes them.

    The distance of two tokens is 1 - cosine; a token's score is its distance to the nearest chosen token, at
    first to the nearest other token, times its weight. The highest score is taken next, of equals the earlier.

    x: (G, m, D). weight: (G, m), 0 or more; None: 1 each. -> int64 (G, count).
    Memory: O(G m D) and at most 64 MiB of distances: all m x m of them where they fit, which saves a product with
    all tokens in every step, else in blocks.
    """
    u = unit(x)
    cosines = u @ u.transpose(1, 2) if u.shape[0] * u.shape[1] ** 2 <= _ENTRIES else None  # (G, m, m)
    scale = u.new_ones(u.shape[:2]) if weight is None else weight.to(u.dtype)
    group = torch.arange(u.shape[0], device=u.device)
    order = torch.zeros(u.shape[0], count, dtype=torch.int64, device=u.device)
    distance = torch.full_like(scale, torch.inf)  # to the nearest chosen one
    taken = torch.zeros_like(scale, dtype=torch.bool)
    for step in range(count):
        score = scale * (distance if step else _to_nearest_other(u, cosines))
        latest = score.masked_fill(taken, -torch.inf).argmax(dim=1)  # (G,), the first of equals
        order[:, step] = latest
        taken[group, latest] = True
        near = (u @ u[group, latest][:, :, None]).squeeze(2) if cosines is None else cosines[group, latest]
        distance = distance.minimum((1 - near).clamp(min=0))
    return order


def _to_nearest_other(u: Tensor, cosines: Tensor | None) -> Tensor:
    """1 - cosine of each token to the nearest other: (G, m, D) of length 1 -> (G, m); 2 for a lone token."""
    groups, tokens, _ = u.shape
    step = max(1, _ENTRIES // (groups * tokens))
    found = u.new_empty(groups, tokens)
    for start in range(0, tokens, step):
        rows = torch.arange(start, min(start + step, tokens), device=u.device)
        # (G, rows, m)
        cosine = u[:, rows] @ u.transpose(1, 2) if cosines is None else cosines[:, rows].clone()
        cosine[:, rows - start, rows] = -1.0
        found[:, rows] = cosine.amax(dim=2)
    return (1 - found).clamp(min=0)
