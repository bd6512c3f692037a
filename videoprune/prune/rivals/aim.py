"""AIM, Adaptive Inference of multi-modal LLMs (arXiv 2412.03248), its part before the LLM.

Its pruning inside the LLM is `llm.aim_scores`.

Shapes: T frames, n tokens of a frame, k tokens of a frame at a round, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from videoprune.prune.kinds import Product, pair_products
from videoprune.prune.rivals.tokens import ClipSize, ClipTokens, in_clip, over_clip, plan_of
from videoprune.prune.similarity import unit
from videoprune.types import KeepPlan


def _products(size: ClipSize, keep: int) -> list[Product]:
    found, tokens = [], size.tokens
    for remove in _rounds(tokens, keep / size.frames):
        found.append(pair_products(size.frames, tokens, size.width))
        tokens -= remove
    return found


@over_clip("AIM, arXiv 2412.03248", products=_products, exact=False)
def aim(clip: ClipTokens, keep: int, *, generator: torch.Generator | None = None) -> KeepPlan:
    """Merge the most similar neighbours within each frame, halving its tokens in each round.

    Tokens in turn form two sets, and each of the first merges into its most similar one of the second, by the
    cosine of x; for video never across frames, so that time keeps its order. A token and all that merge into it in one
    round count alike, whatever they stand for by then: means of means, as in the authors' program
    (github.com/LaVi-Lab/AIM). Round i takes n // 2^i tokens of n, at most half of those there; where their number is
    odd, the one that is left over goes in front of the others in the next round, as it does there.
    The authors end at a quarter, after two rounds. So a share of 2^-i is i whole rounds here, whatever they leave of an
    odd n; for others the last round merges only the best pairs, down to keep / T tokens a frame, rounded up. The clip
    comes near `keep`. All keep their places; there a token left over by the last round comes first. `generator` is not
    used.
    """
    x = clip.x.to(torch.promote_types(clip.x.dtype, torch.float32))
    place = torch.arange(clip.per_frame, device=x.device).expand(x.shape[:2])  # of each token, (T, k)
    group, weight = (
        place,
        x.new_ones(x.shape[:2]),
    )  # for each dense token: which it is in now, its share: (T, n)
    for remove in _rounds(clip.per_frame, keep / clip.frames):
        into, own = _one_round(x, remove)  # (T, k), (T, k - remove)
        shape = own.shape
        taken = torch.zeros(shape, device=x.device).scatter_add(
            1, into, torch.ones(into.shape, device=x.device)
        )
        index = into[..., None].expand_as(x)
        x = x.new_zeros(*shape, x.shape[2]).scatter_add(1, index, x) / taken[..., None]
        place, group = place.gather(1, own), into.gather(1, group)
        weight = weight / taken.gather(1, group)
    return plan_of(in_clip(place.gather(1, group)), weight)


def _rounds(tokens: int, wanted: float) -> Iterator[int]:
    """How many of `tokens` tokens each round takes away until about `wanted` are left."""
    left, halvings = tokens, 0
    while left > math.ceil(wanted):
        ideal = tokens / 2**halvings
        if ideal - wanted < 0.5 and left - wanted < 2:  # odd numbers on the way left one or two more
            return
        halvings += 1
        whole = min(max(1, tokens >> halvings), left // 2)
        reached = ideal / 2 < wanted - 0.5
        remove = min(whole, left - math.ceil(wanted)) if reached else whole
        yield remove
        left -= remove


def _one_round(x: Tensor, remove: int) -> tuple[Tensor, Tensor]:
    """Where each token of x (T, k, D) goes among the k - remove that follow, and which token stands at each of those.

    First come those of the first set that merge into nothing, the most similar first, then the second set.
    """
    u = unit(x)
    best, partner = (u[:, ::2] @ u[:, 1::2].transpose(1, 2)).max(dim=2)  # each (T, k / 2)
    order = best.argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1)
    alone = best.shape[1] - remove  # of the first set
    into = torch.empty(x.shape[:2], dtype=torch.int64, device=x.device)
    into[:, ::2] = (rank - remove).where(rank >= remove, alone + partner)
    second = torch.arange(x.shape[1] // 2, device=x.device).expand(len(x), -1)
    into[:, 1::2] = alone + second
    return into, torch.cat((2 * order[:, remove:], 2 * second + 1), dim=1)
