"""HoliTom (arXiv 2505.21334), its part before the LLM: merge over time what stands still, then thin out in space.

Shapes: T frames, n tokens of a frame, N = T * n, S segments.
"""

from __future__ import annotations

import torch
from torch import Tensor

from videoprune.prune.budget import allocate
from videoprune.prune.merge import apply_plan, compose
from videoprune.prune.rivals.choose import top_mask
from videoprune.prune.rivals.density_peaks import density_peaks
from videoprune.prune.rivals.tokens import ClipTokens, given, over_clip, plan_of, positions
from videoprune.prune.similarity import unit
from videoprune.types import KeepPlan


@over_clip("HoliTom, arXiv 2505.21334", needs=("attention",))
def holitom(
    clip: ClipTokens,
    keep: int,
    *,
    tau: float = 0.8,
    max_length: int = 1024,
    neighbors: int = 7,
    generator: torch.Generator | None = None,
) -> KeepPlan:
    """Segments that merge most over time, then attention for what moves and clusters for what stands still.

    A place stands still in a segment of frames if its x has a cosine above `tau` with the next frame's, all
    through the segment. `segments` finds the segments that save most tokens; in them, what stands still
    merges into its first frame. Of what is left everyone keeps the same share: each frame its moving tokens
    with most attention (the others are dropped), each segment its still tokens as `density_peaks` centres,
    which take in the other still ones.
    Ours: counts are exact, by largest remainders over frames and segments. Where merging over time alone
    would leave fewer than `keep`, the runs with the lowest cosine are not merged. `generator` is not used.
    Not here: merging inside the LLM, and contextual tokens among the moving ones, which the authors' program
    has but leaves off.
    Raises ValueError for max_length or neighbors below 1.
    """
    if max_length < 1:
        raise ValueError(f"max_length={max_length}; allowed: 1 or more frames")
    if neighbors < 1:
        raise ValueError(f"neighbors={neighbors}; allowed: 1 or more")
    u = unit(clip.x)
    cosine = (u[1:] * u[:-1]).sum(dim=2)  # (T - 1, n)
    parts = segments(cosine > tau, max_length)
    still = _still_runs(cosine, parts, tau, keep)  # (S, n)
    target = positions(clip)
    for part, (start, end) in zip(still, parts, strict=True):
        target[start : end + 1] = target[start].where(part, target[start : end + 1])
    return _thin(clip, keep, plan_of(target), still, parts, neighbors)


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


def _still_runs(cosine: Tensor, parts: list[tuple[int, int]], tau: float, keep: int) -> Tensor:
    """Which places merge over time in each segment, leaving at least `keep` tokens: bool (S, n)."""
    tokens = cosine.shape[1]
    weakest = cosine.new_full((len(parts), tokens), -torch.inf)
    for i, (start, end) in enumerate(parts):
        if end > start:
            weakest[i] = cosine[start:end].amin(dim=0)
    still = weakest > tau
    length = torch.tensor([end - start for start, end in parts], device=cosine.device)
    saves = (length[:, None] * still).flatten()
    excess = int(saves.sum()) - ((cosine.shape[0] + 1) * tokens - keep)
    if excess <= 0:
        return still
    order = weakest.masked_fill(~still, torch.inf).flatten().argsort(stable=True)  # the weakest run first
    undone = order[saves[order].cumsum(dim=0) - saves[order] < excess]
    return still.flatten().scatter(0, undone, False).view_as(still)


def _thin(
    clip: ClipTokens,
    keep: int,
    merged: KeepPlan,
    still: Tensor,
    parts: list[tuple[int, int]],
    neighbors: int,
) -> KeepPlan:
    """The spatial step: from the plan over time to the one with `keep` tokens."""
    moving = torch.ones_like(positions(clip), dtype=torch.bool)
    for part, (start, end) in zip(still, parts, strict=True):
        moving[start : end + 1] &= ~part
    sizes = [*moving.sum(dim=1).tolist(), *still.sum(dim=1).tolist()]
    counts = allocate(keep, sizes, sizes, minimum=0)
    place = positions(clip)
    shown = top_mask(
        given(clip.attention), torch.tensor(counts[: clip.frames], device=place.device), among=moving
    )
    target = place.where(shown, -1)
    x = apply_plan(clip.x.flatten(0, 1)[None], merged)[0]  # (K, D)
    for part, (start, _), count in zip(still, parts, counts[clip.frames :], strict=True):
        if count:
            mine = place[start][part]
            centre = density_peaks(x[merged.into[0, mine]], count, neighbors)
            target[start, part] = mine[centre]
    kept = target.flatten()[merged.keep[0]]  # of the survivors over time, where they end
    second = plan_of(merged.into[0][kept.clamp(min=0)].where(kept >= 0, -1)[None])
    return compose(merged, second)
