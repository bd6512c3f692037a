"""FlashVID (arXiv 2602.08024), its part before the LLM: attention and diversity, then trees over space and time.

Known from the paper: ADTS picks tokens by max-min diversity on cosine distances that are calibrated by
CLS attention and by relevance to the event; TSTM links each other token to its most similar one in the frame
before if the cosine is above a threshold, so that trees grow over time, and a tree becomes its mean. From the
authors' program: the segments, the default knobs, and thinning out by density peaks after the trees. Inferred
here: the form of the relevance, and all that makes counts exact.

Shapes: T frames, n tokens of a frame, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from videoprune.prune.budget import allocate
from videoprune.prune.kinds import Product
from videoprune.prune.merge import apply_plan, compose
from videoprune.prune.rivals.choose import even_counts, first_mask
from videoprune.prune.rivals.density_peaks import density_peaks
from videoprune.prune.rivals.max_min import max_min_order
from videoprune.prune.rivals.tokens import (
    ClipSize,
    ClipTokens,
    given,
    over_clip,
    plan_of,
    plan_of_kept,
    positions,
)
from videoprune.prune.similarity import unit
from videoprune.types import KeepPlan

_SEGMENTS = 8


def _products(size: ClipSize, keep: int) -> list[Product]:
    """Distances within each frame, and the links to the frame before, with as few segments as can be."""
    t, n, d = size.frames, size.tokens, size.width
    return [(t, n, d, n), (t - min(_SEGMENTS, t), n, d, n)]


@over_clip("FlashVID, arXiv 2602.08024", needs=("attention",), products=_products)
def flashvid(
    clip: ClipTokens,
    keep: int,
    *,
    alpha: float = 0.7,
    threshold: float = 0.8,
    segment_threshold: float = 0.9,
    min_segments: int = _SEGMENTS,
    relevance: bool = True,
    neighbors: int = 7,
    generator: torch.Generator | None = None,
) -> KeepPlan:
    """Tokens by attention and diversity (ADTS), the others merged in trees over time (TSTM).

    1. `cut` splits the clip in segments. 2. Each frame keeps round(alpha * its even share of `keep`) tokens
    by `max_min_order`, weighted with attention and, with `relevance`, with the token's mean cosine to the
    segment's mean tokens, not below 0. 3. The other tokens link to their most similar other token in the frame
    before, within the segment, if the cosine is above `threshold`; the roots of the trees stay. 4. Fewer roots
    than the rest of `keep`: the weakest links are cut. More: in each frame `density_peaks` centres take in the
    other roots, every frame keeping the same share; a frame that keeps none drops its trees. Merging is a plain
    mean of a tree's tokens; at step 4 of all tokens of the trees that join. `generator` is not used.
    Raises ValueError for alpha outside 0..1, or min_segments or neighbors below 1.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha}; allowed: 0..1, the share of ADTS tokens")
    if min_segments < 1 or neighbors < 1:
        raise ValueError(f"min_segments={min_segments}, neighbors={neighbors}; allowed: 1 or more")
    parts = cut(clip.x, segment_threshold, min_segments)
    weight = given(clip.attention)
    weight = weight * _relevance(clip.x, parts) if relevance else weight
    counts = torch.tensor([round(alpha * c) for c in even_counts(keep, clip.frames)], device=weight.device)
    selected = first_mask(max_min_order(clip.x, int(counts.max()), weight), counts, clip.per_frame)
    left = keep - int(counts.sum())
    if left == 0:
        return plan_of_kept(selected)
    target = positions(clip)
    root = _trees(clip.x, selected, [start for start, _ in parts], threshold, left)
    trees = plan_of(root.where(~selected, target))
    return _join_roots(clip, trees, ~selected & (root == target), left, neighbors)


def cut(x: Tensor, threshold: float, min_segments: int) -> list[tuple[int, int]]:
    """Segments (first, last): cuts where the mean tokens of adjacent frames have a cosine below `threshold`.

    With fewer than `min_segments`, also at the lowest of the others, as far as there are frames. x: (T, n, D).
    """
    u = unit(x.mean(dim=1, dtype=torch.promote_types(x.dtype, torch.float32)))  # (T, D)
    cosine = (u[1:] * u[:-1]).sum(dim=1)
    wanted = max(int((cosine < threshold).sum()), min(min_segments, x.shape[0]) - 1)
    starts = [0, *(cosine.argsort(stable=True)[:wanted].sort().values + 1).tolist()]
    return list(zip(starts, [*(s - 1 for s in starts[1:]), x.shape[0] - 1], strict=True))


def _relevance(x: Tensor, parts: list[tuple[int, int]]) -> Tensor:
    """Mean cosine of each token to the mean tokens of its segment's frames, not below 0: (T, n)."""
    u = unit(x)
    mean = unit(x.mean(dim=1, dtype=u.dtype))  # (T, D)
    found = [u[start : end + 1] @ mean[start : end + 1].mean(dim=0) for start, end in parts]
    return torch.cat(found).clamp(min=0)


def _trees(x: Tensor, selected: Tensor, starts: list[int], threshold: float, least: int) -> Tensor:
    """The root of each token that is not selected, a place in the clip: int64 (T, n); at least `least` roots."""
    frames, tokens = selected.shape
    u = unit(x)
    strength = u.new_full((frames, tokens), -torch.inf)  # of the link to the frame before
    before = torch.zeros_like(selected, dtype=torch.int64)
    for t in range(1, frames):
        if t not in starts:
            cosine = (u[t] @ u[t - 1].T).masked_fill(selected[t - 1], -torch.inf)
            strength[t], before[t] = cosine.max(dim=1)  # the first of equals
    linked = (strength > threshold) & ~selected
    missing = least - int((~selected & ~linked).sum())
    if missing > 0:
        weakest = strength.masked_fill(~linked, torch.inf).flatten().argsort(stable=True)[:missing]
        linked = linked.flatten().scatter(0, weakest, False).view_as(linked)
    root = torch.arange(frames * tokens, device=x.device).view(frames, tokens)
    for t in range(1, frames):
        root[t] = root[t - 1][before[t]].where(linked[t], root[t])
    return root


def _join_roots(clip: ClipTokens, trees: KeepPlan, roots: Tensor, left: int, neighbors: int) -> KeepPlan:
    """Merge the roots bool (T, n) of each frame until `left` of them stay; the other survivors stay as they are."""
    sizes = roots.sum(dim=1).tolist()
    x = apply_plan(clip.x.flatten(0, 1)[None], trees)[0]  # (K, D)
    target = torch.arange(trees.num_kept, device=x.device)
    places = trees.into[0].view_as(roots)  # of a survivor: its index among the survivors
    for t, count in enumerate(allocate(left, sizes, sizes, minimum=0)):
        mine = places[t][roots[t]]
        if count == 0:
            target[mine] = -1
        elif count < len(mine):
            target[mine] = mine[density_peaks(x[mine], count, neighbors)]
    return compose(trees, plan_of(target[None]))
