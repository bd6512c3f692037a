"""HoliTom (arXiv 2505.21334), its part before the LLM: merge over time what stands still, then thin out in space.

Shapes: T frames, n tokens of a frame, N = T * n, S segments.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from videoprune.prune.rivals.density_peaks import density_peaks
from videoprune.prune.rivals.tokens import ClipTokens, given, over_clip, plan_of, positions
from videoprune.prune.select import top_mask
from videoprune.prune.similarity import unit
from videoprune.types import KeepPlan

_FEW = 0.125  # the authors' scripts have tau 0.65 for a tenth, 0.8 for 0.15 and more


@over_clip("HoliTom, arXiv 2505.21334", needs=("attention",), exact=False)
def holitom(
    clip: ClipTokens,
    keep: int,
    *,
    tau: float | None = None,
    beta: float = 0.6,
    max_length: int = 1024,
    neighbors: int = 7,
    generator: torch.Generator | None = None,
) -> KeepPlan:
    """Segments that merge most over time, then attention for what moves and clusters for what stands still.

    A place stands still in a segment of frames if its x has a cosine above `tau` with the next frame's, all
    through the segment. `segments` finds the segments that save most tokens; in them, what stands still
    merges into its first frame, as a mean. Of what is left everyone keeps the same share, `keep` over what is left:
    each frame its moving tokens with most attention, rounded up (the others are dropped), each segment its still tokens
    as `density_peaks` centres, rounded to the nearest: beta * the centre + (1 - beta) * the mean of those that join it.

    tau: None: 0.65 below an eighth, else 0.8, as in the authors' scripts. As in the authors' program a clip keeps
    about `keep` tokens: fewer where merging over time leaves fewer, but one at least. `generator` is not used.
    Not here: merging inside the LLM, and contextual tokens among the moving ones, which the authors' program
    has but leaves off. On LLaVA-OneVision it hands the LLM a segment's still tokens before all others of the segment;
    here every token stands in its own place.
    Raises ValueError for max_length or neighbors below 1, or beta outside 0..1.
    """
    if max_length < 1:
        raise ValueError(f"max_length={max_length}; allowed: 1 or more frames")
    if neighbors < 1:
        raise ValueError(f"neighbors={neighbors}; allowed: 1 or more")
    if not 0 <= beta <= 1:
        raise ValueError(f"beta={beta}; allowed: 0..1, the centre's share of a cluster")
    if tau is None:
        tau = 0.65 if keep < _FEW * clip.num_tokens else 0.8
    u = unit(clip.x)
    same = (u[1:] * u[:-1]).sum(dim=2) > tau  # (T - 1, n)
    parts = segments(same, max_length)
    still = torch.zeros(len(parts), clip.per_frame, dtype=torch.bool, device=same.device)
    for s, (start, end) in enumerate(parts):
        if end > start:
            still[s] = same[start:end].all(dim=0)
    return _thin(clip, keep, parts, still, beta, neighbors)


def segments(same: Tensor, max_length: int) -> list[tuple[int, int]]:
    """Cut T frames in segments (first, last) such that merging what stands still saves most tokens.

    same: bool (T - 1, n), whether a place is the same in frame t and t + 1. A segment of L frames saves
    (L - 1) tokens for each place that is the same all through. Exact, by dynamic programming; of equal cuts
    the one whose last segment is shortest, then the one before, and so on.
    """
    frames = same.shape[0] + 1
    saved = [[0] * frames for _ in range(frames)]
    for start in range(frames - 1):
        runs = same[start : start + max_length - 1].to(torch.int32).cumprod(dim=0).sum(dim=1).tolist()
        for length, places in enumerate(runs, start=1):
            saved[start][start + length] = length * places
    total, first = [0], [0]  # of the first e frames: the most saved, and where the last segment starts
    for end in range(frames):
        starts = range(end, max(end - max_length, -1), -1)
        best = max(starts, key=lambda s, end=end: total[s] + saved[s][end])  # type: ignore[misc]
        total.append(total[best] + saved[best][end])
        first.append(best)
    parts, end = [], frames
    while end > 0:
        parts.append((first[end], end - 1))
        end = first[end]
    return parts[::-1]


def _thin(
    clip: ClipTokens,
    keep: int,
    parts: list[tuple[int, int]],
    still: Tensor,
    beta: float,
    neighbors: int,
) -> KeepPlan:
    """Everyone's share of what merging over time leaves. still: bool (S, n)."""
    moving = torch.ones_like(positions(clip), dtype=torch.bool)
    for part, (start, end) in zip(still, parts, strict=True):
        moving[start : end + 1] &= ~part
    sizes, resting = moving.sum(dim=1).tolist(), still.sum(dim=1).tolist()
    share = min(keep / clip.num_tokens / ((sum(sizes) + sum(resting)) / clip.num_tokens), 1)
    shown = torch.tensor([math.ceil(m * share) for m in sizes], device=moving.device)
    counts = [round(m * share) for m in resting]
    if not any(sizes) and not any(counts):
        counts[0] = 1
    place = positions(clip)
    target = place.where(top_mask(given(clip.attention), shown, among=moving), -1)
    weight = given(clip.x).new_ones(place.shape)
    for part, (start, end), count in zip(still, parts, counts, strict=True):
        if count:
            mean = clip.x[start : end + 1, part].mean(dim=0, dtype=weight.dtype)  # (m, D)
            centre = density_peaks(mean, count, neighbors)
            target[start : end + 1, part] = place[start][part][centre]
            weight[start : end + 1, part] = _weights(centre, beta).to(weight.dtype) / (end - start + 1)
    return plan_of(target, weight)


def _weights(centre: Tensor, beta: float) -> Tensor:
    """What each token counts in its cluster, of which centre int64 (m,) names the centre: (m,)."""
    joined = centre.bincount(minlength=len(centre))[centre] - 1  # tokens beside the centre
    own = centre == torch.arange(len(centre), device=centre.device)
    return torch.where(own, (joined > 0) * (beta - 1) + 1.0, (1 - beta) / joined.clamp(min=1))
