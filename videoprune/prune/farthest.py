"""Tokens of one clip that lie far from each other, chosen in a few rounds.

Farthest-point sampling (greedy max-min) takes one token after another, each the farthest from all before, and a device
is told of every one. Here a round takes many: those that stay far from what is chosen even if all that lie farther out
were chosen with them. A few rounds cover the tokens about as well as the greedy search (docs/methods.md), with as many
operations whatever the number of tokens. The form is this project's.

Shapes: m tokens, D width, G stretches of the clip, L tokens of the longest, c chosen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from videoprune.prune.budget import allocate
from videoprune.prune.merge import drop_others, rows_at
from videoprune.prune.similarity import unit
from videoprune.types import KeepPlan

ROUNDS = 4
LONGEST_STRETCH = 2048
ENTRIES = 2**25  # distances held at once: 128 MiB in float32
_BEYOND = 1e4  # farther than any two tokens


@torch.no_grad()
def farthest_plan(
    x: Tensor,
    keep: int,
    *,
    frame: np.ndarray | None = None,
    time_weight: float = 0.0,
    rounds: int = ROUNDS,
    longest: int = LONGEST_STRETCH,
) -> KeepPlan:
    """Keep `keep` tokens of x (m, D) that differ most from each other, by 1 - cosine; the others are dropped: one row.

    frame: whole numbers (m,), ascending; two tokens are `time_weight` times the share of the clip's frames between them
    farther apart. More than `longest` tokens are cut into stretches of one length, but for the last, each of which
    chooses its share by itself, and measures time as if it were the clip. Ties go to the earlier token.
    Raises ValueError if `keep` is not in 0..m, or for `rounds` or `longest` below 1.
    """
    tokens = len(x)
    if not 0 <= keep <= tokens:
        raise ValueError(f"keep={keep}; allowed: 0..{tokens}, the number of tokens")
    for name, value in (("rounds", rounds), ("longest", longest)):
        if value < 1:
            raise ValueError(f"{name}={value}; allowed: 1 or more")
    if not keep:
        return drop_others(torch.empty(1, 0, dtype=torch.int64, device=x.device), tokens)
    longest = stretches(tokens, longest)[1]
    lengths = [min(longest, tokens - start) for start in range(0, tokens, longest)]
    counts = allocate(keep, lengths, lengths, minimum=0)
    missing = longest * len(lengths) - tokens
    u = unit(x)
    u = (F.pad(u, (0, 0, 0, missing)) if missing else u).unflatten(0, (-1, longest))  # (G, L, D)
    moment = None
    if frame is not None and time_weight:
        moment = torch.from_numpy(_moments(frame, longest, time_weight)).to(u.device, u.dtype)
    ends, at_once = _ends(max(counts), rounds), max(1, ENTRIES // longest**2)
    order = []
    for first in range(0, len(lengths), at_once):
        some = slice(first, first + at_once)
        far = _distances(u[some], None if moment is None else moment[some])
        order.append(_rounds(far, ends, missing if some.stop >= len(lengths) else 0))
    places = _places(order[0] if len(order) == 1 else torch.cat(order), longest, counts)
    return drop_others(places[None], tokens)


def stretches(tokens: int, longest: int = LONGEST_STRETCH) -> tuple[int, int]:
    """How many stretches of one length so many tokens are cut into, and that length; the last may be shorter."""
    count = -(-tokens // longest)
    return count, -(-tokens // max(1, count))


def _moments(frame: np.ndarray, longest: int, time_weight: float) -> np.ndarray:
    """(G, L) float64: when each token is shown, so that the whole length of its stretch is `time_weight`."""
    found = np.zeros((-(-len(frame) // longest), longest))
    for row, start in zip(found, range(0, len(frame), longest), strict=True):
        part = frame[start : start + longest]
        row[: len(part)] = part * (time_weight / (part[-1] - part[0] + 1))
    return found


def _places(order: Tensor, length: int, counts: Sequence[int]) -> Tensor:
    """The first counts[g] of each stretch's order (G, at least as many): their places in the clip, ascending."""
    groups, most = len(counts), max(counts)
    places = order[:, :most] + torch.arange(0, groups * length, length, device=order.device)[:, None]
    if min(counts) < most:
        wanted = torch.tensor(counts, device=order.device)[:, None]
        within = torch.arange(most, device=order.device)
        places = places.where(within < wanted, groups * length)
    return places.flatten().sort().values[: sum(counts)]


def _ends(count: int, rounds: int) -> list[int]:
    """How many are chosen after each round, as even as can be: strictly ascending to `count`."""
    return sorted({round(count * (r + 1) / rounds) for r in range(rounds)} - {0})


def _distances(u: Tensor, moment: Tensor | None) -> Tensor:
    """u (G, L, D) of length 1, moment (G, L) -> (G, L, L); each token is beyond all from itself. Symmetric to the last
    digit, which a product is not, so that two that are each other's nearest tie."""
    alike = u @ u.transpose(1, 2)
    far = (1 - torch.maximum(alike, alike.transpose(1, 2))).clamp_(min=0)
    if moment is not None:
        far += (moment[:, :, None] - moment[:, None]).abs_()
    far.diagonal(dim1=1, dim2=2).fill_(_BEYOND)
    return far


def _rounds(far: Tensor, ends: Sequence[int], missing: int) -> Tensor:
    """The first ends[-1] tokens of each stretch, (G, c). far: (G, L, L). missing: how many places at the end of the
    last stretch hold no token."""
    place = torch.arange(far.shape[1], device=far.device)
    distance = far.new_full(far.shape[:2], _BEYOND)  # to the nearest chosen one; below 0: not to be chosen
    if missing:
        far[-1, :, -missing:] = _BEYOND
        distance[-1, -missing:] = -1
    score = torch.minimum(far.amin(2), distance)  # to the nearest other
    far.diagonal(dim1=1, dim2=2).fill_(-1)  # who is chosen is nearest to itself, and not to be chosen again
    chosen: list[Tensor] = []
    for start, end in zip([0, *ends], ends, strict=False):
        if chosen:
            score = distance = torch.minimum(distance, rows_at(far, chosen[-1]).amin(1))
        order = score.argsort(dim=1, descending=True, stable=True)
        rank = torch.empty_like(order).scatter_(1, order, place.expand_as(order))
        # (G, L, L), whether the second of the two is nearer or the same.
        later = rank[:, None] >= rank[:, :, None]
        alone = torch.minimum(far.masked_fill(later, _BEYOND).amin(2), distance)
        chosen.append(alone.argsort(dim=1, descending=True, stable=True)[:, : end - start])
    return torch.cat(chosen, 1)
