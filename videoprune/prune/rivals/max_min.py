"""Greedy max-min diversity: again and again the token that is farthest from all chosen ones.

Shapes: G groups (frames, or one for the whole clip), m tokens of a group, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from videoprune.prune.budget import allocate
from videoprune.prune.rivals.choose import even_counts
from videoprune.prune.similarity import unit

LONGEST_STRETCH = 2048
ENTRIES = 2**24  # distances held at once: 64 MiB in float32
_BEYOND = 1e4


class Times(NamedTuple):
    """frame: (G, m), whole numbers, in which frame each token lies. step: (G,), how far neighbours are apart."""

    frame: Tensor
    step: Tensor

    def apart(self, rows: Tensor) -> Tensor:
        """How far the tokens `rows` (G, r) are from all: (G, r, m)."""
        between = self.frame.gather(1, rows)[..., None] - self.frame[:, None]
        return between.abs_().mul_(self.step[:, None, None])


@torch.no_grad()
def max_min_order(
    x: Tensor, count: int, weight: Tensor | None = None, *, times: Times | None = None
) -> Tensor:
    """The first `count` tokens of each group in the order in which the greedy search takes them.

    The distance of two tokens is 1 - cosine, plus how far apart they are in time; a token's score is its distance to
    the nearest chosen token, at first to the nearest other token, times its weight. The highest score is taken next,
    of equals the earlier.

    x: (G, m, D). weight: (G, m), 0 or more; None: 1 each. times: None leaves time out. -> int64 (G, count).
    Memory: O(G m D) and at most 64 MiB of distances: all m x m of them where they fit, which saves a product with
    all tokens in every step, else in blocks.
    """
    u = unit(x)
    whole = u.shape[0] * u.shape[1] ** 2 <= ENTRIES
    every = torch.arange(u.shape[1], device=u.device).expand(u.shape[:2])
    far = _distances(u @ u.transpose(1, 2), every, times) if whole else None  # (G, m, m)
    group, order = torch.arange(u.shape[0], device=u.device), []
    first = _to_nearest_other(u, far, times)
    distance = torch.full_like(first, torch.inf)  # to the nearest chosen one; minus infinity at the chosen
    for step in range(count):
        score = distance if step else first
        if weight is not None:
            score = (score * weight.to(u.dtype)).where(distance >= 0, -torch.inf)
        latest = score.argmax(dim=1) if step else _first_of_most(score)  # (G,), the first of equals
        order.append(latest)
        distance[group, latest] = -torch.inf
        if far is None:
            alike = (u @ u[group, latest][:, :, None]).transpose(1, 2)  # (G, 1, m)
            near = _distances(alike, latest[:, None], times)[:, 0]
        else:
            near = far[group, latest]
        torch.minimum(distance, near, out=distance)
    return torch.stack(order, 1) if order else first.new_zeros(u.shape[0], 0, dtype=torch.int64)


def max_min_mask(
    x: Tensor,
    keep: int,
    *,
    frame: Tensor | None = None,
    time_weight: float = 0.0,
    longest: int = LONGEST_STRETCH,
) -> Tensor:
    """Which `keep` tokens of x (m, D) stay, chosen by `max_min_order`: bool (m,).

    frame: int64 (m,), ascending; two tokens are `time_weight` times the share of the clip's frames between them
    farther apart. More than `longest` tokens are cut into stretches as equal as can be, each of which chooses its
    even share by itself, several at once: the greedy search takes one step after another, and each step looks at all
    tokens. A stretch measures time as if it were the clip.
    """
    lengths = even_counts(len(x), -(-len(x) // longest))
    counts, starts = allocate(keep, lengths, lengths, minimum=0), [0, *accumulate(lengths)]
    kept = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for length in sorted(set(lengths)):
        same = [i for i, n in enumerate(lengths) if n == length]
        at_once = max(1, ENTRIES // length**2)
        for some in (same[i : i + at_once] for i in range(0, len(same), at_once)):
            part = torch.stack([x[starts[i] : starts[i] + length] for i in some])  # (G, length, D)
            times = None
            if frame is not None and time_weight:
                parts = [frame[starts[i] : starts[i] + length] for i in some]
                times = _times(parts, time_weight, torch.promote_types(x.dtype, torch.float32))
            order = max_min_order(part, max(counts[i] for i in some), times=times)
            for i, places in zip(some, order, strict=True):  # greedy: a smaller choice begins a larger one
                kept[starts[i] + places[: counts[i]]] = True
    return kept


def _times(frames: Sequence[Tensor], time_weight: float, dtype: torch.dtype) -> Times:
    """Of stretches whose tokens lie in frames (m,), ascending: the whole length of each is `time_weight`."""
    frame = torch.stack(list(frames)).to(dtype)
    return Times(frame, time_weight / (frame[:, -1] - frame[:, 0] + 1))


def _first_of_most(score: Tensor) -> Tensor:
    """The first token of each group with the highest score (G, m), but for rounding: two tokens that are each other's
    nearest tie, and products on some processors give them unlike last digits."""
    most = score.amax(dim=1, keepdim=True)
    return (score >= most - 16 * torch.finfo(score.dtype).eps).int().argmax(dim=1)


def _distances(cosine: Tensor, rows: Tensor, times: Times | None) -> Tensor:
    """From the tokens `rows` (G, r) to all: their cosines (G, r, m) -> (G, r, m)."""
    far = (1 - cosine).clamp_(min=0)
    return far if times is None else far.add_(times.apart(rows))


def _to_nearest_other(u: Tensor, far: Tensor | None, times: Times | None) -> Tensor:
    """The distance of each token to the nearest other: (G, m, D) of length 1 -> (G, m); a lone token is beyond all.

    far: (G, m, m), the distances if they are there.
    """
    groups, tokens, _ = u.shape
    step = max(1, ENTRIES // (groups * tokens))
    found = u.new_empty(groups, tokens)
    for start in range(0, tokens, step):
        rows = torch.arange(start, min(start + step, tokens), device=u.device)
        # (G, rows, m)
        if far is None:
            near = _distances(u[:, rows] @ u.transpose(1, 2), rows.expand(groups, -1), times)
        else:
            near = far[:, rows].clone()
        near[:, rows - start, rows] = _BEYOND
        found[:, rows] = near.amin(dim=2)
    return found
