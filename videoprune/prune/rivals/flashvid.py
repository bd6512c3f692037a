"""FlashVID (arXiv 2602.08024), its part before the LLM: attention and diversity, then trees over space and time.

ADTS picks tokens by max-min diversity, on cosine distances that are weighted with attention and with relevance to the
event; TSTM links each other token to its most similar one in the frame before if the cosine is above a threshold, so
that trees grow over time, and thins their roots out by density peaks. All as in the authors' program.

Shapes: T frames, n tokens of a frame, N = T * n, D width, L frames of a segment.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from videoprune.prune.kinds import Product
from videoprune.prune.merge import apply_plan
from videoprune.prune.rivals.density_peaks import density_peaks
from videoprune.prune.rivals.max_min import max_min_order
from videoprune.prune.rivals.scenes import cut, fewest
from videoprune.prune.rivals.tokens import (
    ClipSize,
    ClipTokens,
    given,
    over_clip,
    plan_of,
    plan_of_kept,
    plan_of_sums,
    positions,
)
from videoprune.prune.similarity import unit
from videoprune.types import KeepPlan

_Sums = tuple[Tensor, Tensor, Tensor]  # taker, token, weight, each (M,): what `plan_of_sums` makes a plan of


def _products(size: ClipSize, keep: int) -> list[Product]:
    """Distances within each frame, and the links to the frame before, with as few segments as can be."""
    t, n, d = size.frames, size.tokens, size.width
    return [(t, n, d, n), (t - fewest(t), n, d, n)]


def _count(frames: int, tokens: int, keep: int) -> int:
    return frames * min(tokens, -(-keep // frames))


@over_clip("FlashVID, arXiv 2602.08024", needs=("attention",), products=_products, exact=False, count=_count)
def flashvid(
    clip: ClipTokens,
    keep: int,
    *,
    alpha: float = 0.7,
    threshold: float = 0.8,
    segment_threshold: float = 0.9,
    min_segments: int | None = None,
    relevance: bool = True,
    neighbors: int = 7,
    generator: torch.Generator | None = None,
) -> KeepPlan:
    """Tokens by attention and diversity (ADTS), the others merged in trees over time (TSTM).

    Every frame has a budget of ceil(keep / T) tokens. 1. `cut` splits the clip in segments. 2. Each frame keeps
    ceil(alpha * budget) tokens by `max_min_order`, weighted with attention and, with `relevance` (the authors' v2),
    with the token's dot product with the mean of its segment, not below 0. Without it that is their v1, which they
    use for Qwen2.5-VL and Qwen3-VL. 3. The other tokens link to their most similar other token in the frame before,
    within the segment, if the cosine is above `threshold`; where a segment would have fewer roots left than its
    budget, the strongest links alone, so that one more than the budget is left. A root becomes the sum of its tree
    over 1 + the tokens linked to it directly: a mean, and more than one where a tree is three frames deep. 4. Of the
    roots of a segment the rest of the budget stays, every frame the same share, rounded up: `density_peaks` centres,
    means of their clusters. In a segment of one frame all its tokens are clustered, those of step 2 too; a centre
    among these hands its cluster to the nearest place that is free (the authors have two tokens at that place).

    min_segments: None: `scenes.fewest`. As in the authors' program a clip keeps a few tokens more than `keep`; their
    budget is ceil(n * share), one token more where rounding `keep` over the clip took that fraction away. `generator`
    is not used. Raises ValueError for alpha outside 0..1, or min_segments or neighbors below 1.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha}; allowed: 0..1, the share of ADTS tokens")
    least = fewest(clip.frames) if min_segments is None else min_segments
    if least < 1 or neighbors < 1:
        raise ValueError(f"min_segments={min_segments}, neighbors={neighbors}; allowed: 1 or more")
    parts = cut(clip.x, segment_threshold, least)
    weight = given(clip.attention)
    weight = weight * _relevance(clip.x, parts) if relevance else weight
    budget = -(-keep // clip.frames)
    chosen = math.ceil(alpha * budget)
    order = max_min_order(clip.x, chosen, weight)  # (T, chosen)
    selected = torch.zeros_like(weight, dtype=torch.bool).scatter(1, order, True)
    if budget == chosen:
        return plan_of_kept(selected)
    own = positions(clip)[selected]
    sums = [(own, own, weight.new_ones(own.shape))]
    linked, before = _links(clip.x, selected, parts, threshold, budget)
    trees, roots = _trees(linked, before)
    grown = apply_plan(clip.x.flatten(0, 1)[None], trees)[0]  # (K, D)
    for start, end in parts:
        wanted = (budget - chosen) * (end - start + 1)
        if start == end:
            sums.append(_still(clip.x[start], selected[start], wanted, neighbors, start))
        else:
            part = slice(start, end + 1)
            sums.append(_thinned(grown, trees, (roots & ~selected)[part], wanted, neighbors, start))
    taker, token, share = (torch.cat(s) for s in zip(*sums, strict=True))
    kept = torch.zeros(clip.num_tokens, dtype=torch.bool, device=taker.device).scatter(0, taker, True)
    return plan_of_sums(kept.view_as(selected), taker, token, share)


@over_clip("FlashVID, arXiv 2602.08024", needs=("attention",), products=_products, exact=False, count=_count)
def flashvid_v1(clip: ClipTokens, keep: int, *, generator: torch.Generator | None = None) -> KeepPlan:
    """`flashvid` without relevance, as its authors run it on Qwen2.5-VL and Qwen3-VL. `generator` is not used."""
    return flashvid.function(clip, keep, relevance=False)


def _relevance(x: Tensor, parts: list[tuple[int, int]]) -> Tensor:
    """Dot product of each token with the mean of all tokens of its segment, not below 0: (T, n)."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    mean = x.mean(dim=1)  # (T, D)
    found = [x[start : end + 1] @ mean[start : end + 1].mean(dim=0) for start, end in parts]
    return torch.cat(found).clamp(min=0)


def _links(
    x: Tensor, selected: Tensor, parts: list[tuple[int, int]], threshold: float, budget: int
) -> tuple[Tensor, Tensor]:
    """Which tokens link to the frame before, bool (T, n), and to which of its tokens, int64 (T, n)."""
    frames, tokens = selected.shape
    u = unit(x)
    strength = u.new_full((frames, tokens), -torch.inf)
    before = torch.zeros_like(selected, dtype=torch.int64)
    linked = torch.zeros_like(selected)
    for start, end in parts:
        for t in range(start + 1, end + 1):
            cosine = (u[t] @ u[t - 1].T).masked_fill(selected[t - 1], -torch.inf)
            strength[t], before[t] = cosine.max(dim=1)  # the first of equals
        part = strength[start : end + 1].masked_fill(selected[start : end + 1], -torch.inf)
        links = part > threshold
        most = part.numel() - budget * len(part)
        if int(links.sum()) > most:
            strongest = part.flatten().topk(most).values
            links = part > strongest[-1] if most else torch.zeros_like(links)
        linked[start : end + 1] = links
    return linked, before


def _trees(linked: Tensor, before: Tensor) -> tuple[KeepPlan, Tensor]:
    """The plan that makes a tree its root, as the authors sum it, and the roots bool (T, n)."""
    frames, tokens = linked.shape
    place = torch.arange(frames * tokens, device=linked.device).view(frames, tokens)
    root, children = place.clone(), torch.zeros_like(place)
    for t in range(1, frames):
        root[t] = root[t - 1][before[t]].where(linked[t], root[t])
        children[t - 1] = torch.zeros_like(before[t]).index_add(0, before[t], linked[t].to(torch.int64))
    return plan_of(root, 1.0 / (1 + children.flatten()[root])), ~linked


def _thinned(grown: Tensor, trees: KeepPlan, roots: Tensor, wanted: int, neighbors: int, start: int) -> _Sums:
    """The sums that about `wanted` of a segment's roots, bool (L, n), become: each frame's share of them."""
    frames, tokens = roots.shape
    ratio = wanted / int(roots.sum())
    root = trees.into[0].view(-1, tokens)[start : start + frames]  # (L, n), a place among all survivors
    end = torch.full((len(grown),), -1, device=roots.device)  # of a survivor: the root that it joins
    size = torch.ones_like(end)  # of a survivor: the roots of its cluster
    for t in range(frames):
        mine = root[t][roots[t]]  # (m,)
        count = math.ceil(len(mine) * ratio)
        centre = torch.arange(len(mine), device=mine.device)
        if 0 < count < len(mine):
            centre = density_peaks(grown[mine], count, neighbors)
        end[mine] = mine[centre]
        size[mine] = centre.bincount(minlength=len(mine))[centre]
    assert trees.weight is not None
    inside = end[root] >= 0
    place = start * tokens + torch.arange(frames * tokens, device=roots.device).view(frames, tokens)
    share = trees.weight.view(-1, tokens)[start : start + frames] / size[root]
    return trees.keep[0][end[root][inside]], place[inside], share[inside]


def _still(x: Tensor, selected: Tensor, wanted: int, neighbors: int, frame: int) -> _Sums:
    """The sums that the clusters of one frame's tokens x (n, D) become."""
    tokens = len(x)
    ratio = wanted / tokens
    count = min(math.ceil(tokens * ratio), tokens - int(selected.sum()))
    centre = density_peaks(x, count, neighbors)
    share = 1.0 / centre.bincount(minlength=tokens)[centre]
    place = torch.arange(tokens, device=x.device)
    return (
        _free_places(x, centre, selected) + frame * tokens,
        place + frame * tokens,
        share.to(torch.promote_types(x.dtype, torch.float32)),
    )


def _free_places(x: Tensor, centre: Tensor, selected: Tensor) -> Tensor:
    """Where each token's cluster goes: its centre, or where that is selected the nearest place that is free, in the
    cluster if it has one. x: (n, D). centre: int64 (n,). selected: bool (n,). -> int64 (n,)."""
    place = torch.arange(len(centre), device=centre.device)
    free = ~selected & (centre != place)
    for c in ((centre == place) & selected).nonzero()[:, 0].tolist():
        mine = free & (centre == c)
        allowed = mine if bool(mine.any()) else free
        distance = (x - x[c]).norm(dim=1).masked_fill(~allowed, torch.inf)
        place[c] = distance.argmin()
        free[place[c]] = False
    return place[centre]
