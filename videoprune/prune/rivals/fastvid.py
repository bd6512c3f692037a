"""FastVID (arXiv 2503.11187, NeurIPS 2025): scenes, the most attended tokens, and density-based merging over a scene.

Shapes: T frames, n tokens of a frame, D width, m tokens of a frame that are not salient, L frames of a segment, A of
them anchors, k contextual tokens of an anchor.
"""

from __future__ import annotations

import torch
from torch import Tensor

from videoprune.prune.kinds import Product
from videoprune.prune.rivals.choose import even_counts
from videoprune.prune.rivals.density_peaks import peak_scores
from videoprune.prune.rivals.scenes import cut, fewest
from videoprune.prune.rivals.tokens import ClipSize, ClipTokens, given, over_clip, plan_of_sums, positions
from videoprune.prune.select import top_mask
from videoprune.prune.similarity import unit
from videoprune.types import KeepPlan

_CONTEXT = 0.4
_SPACING = 4
_NEIGHBORS = 4


def _products(size: ClipSize, keep: int) -> list[Product]:
    """Distances within each frame, and each segment's tokens against those of its anchors, with as few segments as can
    be, of equal lengths."""
    context = int(max(1, keep // size.frames) * _CONTEXT)
    if context == 0:
        return []
    rest = size.tokens - max(1, keep // size.frames) + context
    found = [(size.frames, rest, size.width, rest)]
    for length in even_counts(size.frames, fewest(size.frames)):
        anchors = -(-length // _SPACING)
        found.append((anchors, length * rest, size.width, min(context * length // anchors, rest)))
    return found


def _count(frames: int, tokens: int, keep: int) -> int:
    return frames * min(tokens, max(1, keep // frames))


@over_clip("FastVID, arXiv 2503.11187", needs=("attention",), products=_products, exact=False, count=_count)
def fastvid(
    clip: ClipTokens,
    keep: int,
    *,
    context: float = _CONTEXT,
    spacing: int = _SPACING,
    beta: float = 0.6,
    segment_threshold: float = 0.9,
    min_segments: int | None = None,
    generator: torch.Generator | None = None,
) -> KeepPlan:
    """Salient tokens of every frame (ATS), and contextual tokens of a few frames into which a segment merges (DTM).

    Every frame has a budget of keep // T tokens, `context` of them, rounded down, contextual. 1. `cut` splits the
    clip in segments (DySeg). 2. Each frame keeps the rest of its budget by attention. 3. Anchors are the last frame
    of a segment and every `spacing`-th before it. They share the segment's contextual tokens evenly, a remainder is
    lost: of each anchor's tokens that are not salient those with the highest `peak_scores` (4 neighbours, itself
    included). 4. For each anchor anew, all tokens of the segment that are not salient join the contextual token with
    the highest cosine, which becomes beta * itself + (1 - beta) * the mean of those that joined, itself among them.
    So a token may be in the sums of several anchors, and none is dropped where there is a contextual token.

    As in the authors' parallel program, for LLaVA-OneVision. That for LLaVA-Video hands out remainders and has an
    anchor's contextual tokens not join; that for Qwen2.5-VL also passes over frames much like the next. They rank
    frames by SigLIP's pooled output and tokens by the attention of its pooling head; here the mean token of a frame,
    which is theirs for Qwen2.5-VL, and `clip.attention`, CLS attention or attention received. min_segments: None:
    `scenes.fewest`. A clip keeps fewer than `keep` tokens where T does not divide it, or remainders are lost; an
    anchor that has fewer tokens than its share keeps all (the authors' program fails there), and each frame at least
    one. `generator` is not used. Raises ValueError for context or beta outside 0..1, or spacing or min_segments below
    1.
    """
    for name, value in (("context", context), ("beta", beta)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name}={value}; allowed: 0..1")
    least = fewest(clip.frames) if min_segments is None else min_segments
    if least < 1 or spacing < 1:
        raise ValueError(f"min_segments={min_segments}, spacing={spacing}; allowed: 1 or more")
    budget = max(1, keep // clip.frames)
    contextual = int(budget * context)
    attention, place = given(clip.attention), positions(clip)
    kept = top_mask(attention, torch.full_like(place[:, 0], budget - contextual))
    own = place[kept]
    sums = [(own, own, attention.new_ones(own.shape))]
    if contextual:
        rest = place[~kept].view(clip.frames, -1)  # (T, m)
        u = unit(clip.x).flatten(0, 1)[rest]  # (T, m, D)
        best = _ranked(given(clip.x).flatten(0, 1)[rest])  # (T, m)
        for start, end in cut(clip.x, segment_threshold, least):
            anchors = torch.arange(end, start - 1, -spacing, device=place.device)
            count = contextual * (end - start + 1) // len(anchors)
            centre = best[anchors, :count]  # (A, k)
            joins = _joined(u[start : end + 1].flatten(0, 1), u[anchors[:, None], centre])  # (A, L m)
            sums.append(_sums(rest[anchors[:, None], centre], joins, rest[start : end + 1].flatten(), beta))
    taker, token, weight = (torch.cat(part) for part in zip(*sums, strict=True))
    kept = kept.flatten().scatter(0, taker, True).view_as(kept)
    return plan_of_sums(kept, taker, token, weight.to(attention.dtype))


def _ranked(x: Tensor) -> Tensor:
    """The tokens of each frame x (T, m, D), by falling `peak_scores`: int64 (T, m)."""
    square = x.square().sum(dim=2)  # (T, m)
    between = torch.baddbmm(square[:, :, None] + square[:, None], x, x.transpose(1, 2), alpha=-2)
    between = (between + between.mT).clamp(min=0) / 2  # alike both ways, so that equal densities are equal
    between.diagonal(dim1=1, dim2=2).zero_()
    distance = between.sqrt() / x.shape[2] ** 0.5
    return peak_scores(distance, _NEIGHBORS).argsort(dim=1, descending=True, stable=True)


def _joined(u: Tensor, centre: Tensor) -> Tensor:
    """Which of an anchor's contextual tokens, of unit length (A, k, D), is most similar to each of u (M, D): (A, M)."""
    return (u @ centre.transpose(1, 2)).argmax(dim=2)


def _sums(centre: Tensor, joins: Tensor, token: Tensor, beta: float) -> tuple[Tensor, Tensor, Tensor]:
    """Taker, token and weight of the sums of A anchors: centre int64 (A, k), places in the clip; joins (A, M), which of
    them each token (M,) of the segment joins."""
    size = torch.zeros_like(centre).scatter_add(1, joins, torch.ones_like(joins))  # (A, k)
    taker = centre.gather(1, joins)
    theirs = (1 - beta) / size.gather(1, joins)  # (A, M)
    own = torch.where(size > 0, beta, 1.0)  # (A, k)
    return (
        torch.cat([taker.flatten(), centre.flatten()]),
        torch.cat([token.expand_as(taker).flatten(), centre.flatten()]),
        torch.cat([theirs.flatten(), own.flatten()]),
    )
