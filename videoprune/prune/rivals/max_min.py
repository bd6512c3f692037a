"""Greedy max-min diversity: again and again the token that is farthest from all chosen ones.

Shapes: G groups (frames, or one for the whole clip), m tokens of a group, D width.
"""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor

from videoprune.prune.budget import allocate
from videoprune.prune.rivals.choose import even_counts
from videoprune.prune.similarity import unit

LONGEST_STRETCH = 2048
ENTRIES = 2**24  # distances held at once: 64 MiB in float32


@torch.no_grad()
def max_min_order(x: Tensor, count: int, weight: Tensor | None = None) -> Tensor:
    """The first `count` tokens of each group in the order in which the greedy search takes them.

    The distance of two tokens is 1 - cosine; a token's score is its distance to the nearest chosen token, at
    first to the nearest other token, times its weight. The highest score is taken next, of equals the earlier.

    x: (G, m, D). weight: (G, m), 0 or more; None: 1 each. -> int64 (G, count).
    Memory: O(G m D) and at most 64 MiB of distances: all m x m of them where they fit, which saves a product with
    all tokens in every step, else in blocks.
    """
    u = unit(x)
    whole = u.shape[0] * u.shape[1] ** 2 <= ENTRIES
    far = (1 - u @ u.transpose(1, 2)).clamp_(min=0) if whole else None  # (G, m, m)
    group, order = torch.arange(u.shape[0], device=u.device), []
    first = _to_nearest_other(u, far)
    distance = torch.full_like(first, torch.inf)  # to the nearest chosen one; minus infinity at the chosen
    for step in range(count):
        score = distance if step else first
        if weight is not None:
            score = (score * weight.to(u.dtype)).where(distance >= 0, -torch.inf)
        latest = score.argmax(dim=1)  # (G,), the first of equals
        order.append(latest)
        distance[group, latest] = -torch.inf
        near = 1 - (u @ u[group, latest][:, :, None]).squeeze(2) if far is None else far[group, latest]
        torch.minimum(distance, near.clamp_(min=0) if far is None else near, out=distance)
    return torch.stack(order, 1) if order else first.new_zeros(u.shape[0], 0, dtype=torch.int64)


def max_min_mask(x: Tensor, keep: int, *, longest: int = LONGEST_STRETCH) -> Tensor:
    """Which `keep` tokens of x (m, D) stay, chosen by `max_min_order`: bool (m,).

    More than `longest` tokens are cut into stretches as equal as can be, each of which chooses its even share by
    itself, several at once: the greedy search takes one step after another, and each step looks at all tokens.
    """
    lengths = even_counts(len(x), -(-len(x) // longest))
    counts, starts = allocate(keep, lengths, lengths, minimum=0), [0, *accumulate(lengths)]
    kept = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for length in sorted(set(lengths)):
        same = [i for i, n in enumerate(lengths) if n == length]
        at_once = max(1, ENTRIES // length**2)
        for some in (same[i : i + at_once] for i in range(0, len(same), at_once)):
            part = torch.stack([x[starts[i] : starts[i] + length] for i in some])  # (G, length, D)
            order = max_min_order(part, max(counts[i] for i in some))
            for i, places in zip(some, order, strict=True):  # greedy: a smaller choice begins a larger one
                kept[starts[i] + places[: counts[i]]] = True
    return kept


def _to_nearest_other(u: Tensor, far: Tensor | None) -> Tensor:
    """1 - cosine of each token to the nearest other: (G, m, D) of length 1 -> (G, m); 2 for a lone token.

    far: (G, m, m), the distances if they are there.
    """
    groups, tokens, _ = u.shape
    step = max(1, ENTRIES // (groups * tokens))
    found = u.new_empty(groups, tokens)
    for start in range(0, tokens, step):
        rows = torch.arange(start, min(start + step, tokens), device=u.device)
        # (G, rows, m)
        near = (1 - u[:, rows] @ u.transpose(1, 2)).clamp_(min=0) if far is None else far[:, rows].clone()
        near[:, rows - start, rows] = 2.0
        found[:, rows] = near.amin(dim=2)
    return found
