"""What the papers leave open: redundancy over time inside the encoder, and budgets that follow the content.

EvoPrune (arXiv 2603.03681) names both as limits of its own: temporal redundancy is not used, budgets are not
content-aware. The forms here are this project's. Frames come in order, and places in them correspond.

Shapes: T frames of one clip, U tokens (or units) of a frame, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from videoprune.prune.budget import allocate
from videoprune.types import KeepPlan


def stillness(x: Tensor) -> Tensor:
    """Cosine of each token with the same place one frame earlier: x (T, U, D) -> (T, U) float32, -1 in the first."""
    x = F.normalize(x.detach().float(), dim=-1)
    same = torch.full(x.shape[:2], -1.0, device=x.device)
    same[1:] = (x[1:] * x[:-1]).sum(-1)
    return same


def novelty(still: Tensor) -> Tensor:
    """How much each frame shows that the one before did not: mean of 1 - `stillness`, (T, U) -> (T,), 0 to 2.

    The first frame counts as much as the newest of the others; alone it counts 1.
    """
    new = 1 - still.mean(1)
    new[0] = new[1:].max() if len(new) > 1 else 1.0
    return new.clamp(min=0)


def frame_counts(
    weights: Sequence[float],
    total: int,
    capacity: int,
    *,
    minimum: int = 1,
    even: float = 0.5,
    levels: int = 4,
) -> tuple[int, ...]:
    """Share `total` tokens over frames, exactly; none gets more than `capacity` or less than `minimum`.

    The share `even` is split evenly, the rest in proportion to `weights`. Frames are then joined to `levels` groups
    of similar counts, equal within a group up to one token: equal lengths are what a batch wants.
    Raises ValueError if the total is impossible, or for even outside [0, 1] or levels below 1.
    """
    if not 0 <= even <= 1:
        raise ValueError(f"even={even}; allowed: a number in [0, 1]")
    if levels < 1:
        raise ValueError(f"levels={levels}; allowed: 1 or more")
    frames, whole = len(weights), sum(weights)
    shares = [even / frames + (1 - even) * (w / whole if whole else 1 / frames) for w in weights]
    counts = allocate(total, shares, [capacity] * frames, minimum=minimum)
    smooth = list(counts)
    for group in _alike(counts, range(frames), levels):
        each, more = divmod(sum(counts[f] for f in group), len(group))
        for place, f in enumerate(group):
            smooth[f] = each + (place < more)
    return tuple(smooth)


def still_counts(still: Tensor, most: int, least: float, *, levels: int = 4) -> tuple[int, ...]:
    """How many tokens of each frame merge into the frame before: the stillest of the clip, at most `most` of them.

    still: (T, U), as `stillness` gives it. least: tokens below it stay; above -1, which the first frame has. Every
    frame keeps one token. Frames are joined to `levels` groups of similar counts, and all of a group merge as many as
    the one with fewest: equal lengths are what a batch wants, and none merges a token that is not still.
    """
    frames, units = still.shape
    found = still.flatten().topk(min(most, still.numel()))
    held = (found.values >= least).to(torch.int64)
    merging = torch.zeros(frames, dtype=torch.int64, device=still.device)
    counts: list[int] = merging.scatter_add_(0, found.indices // units, held).clamp(max=units - 1).tolist()
    for group in _alike(counts, range(1, frames), levels):
        for f in group:
            counts[f] = counts[group[-1]]
    return tuple(counts)


def _alike(counts: Sequence[int], frames: Sequence[int], levels: int) -> list[list[int]]:
    """These frames in `levels` groups of similar counts, those with most first."""
    order = sorted(frames, key=lambda f: (-counts[f], f))
    size = max(1, -(-len(order) // levels))
    return [order[start : start + size] for start in range(0, len(order), size)]


@torch.no_grad()
def temporal_plan(still: Tensor, remove: Sequence[int]) -> KeepPlan:
    """Merge the `remove[t]` tokens of frame t that changed least into the same place of the frame before.

    still: (T, U), as `stillness` gives it. A token whose target has merged itself follows it, so a run of still frames
    ends in its first. -> plan over T * U tokens, frame by frame, one row. Ties go to the earlier place. Raises
    ValueError if remove[0] is not 0, or a frame has fewer tokens than it should lose.
    """
    frames, tokens = still.shape
    if len(remove) != frames or remove[0] != 0 or not all(0 <= r <= tokens for r in remove):
        raise ValueError(
            f"remove={tuple(remove)}; allowed: {frames} counts of 0..{tokens}, the first of them 0"
        )
    order = still.argsort(dim=1, descending=True, stable=True)  # (T, U)
    root = torch.arange(frames * tokens, device=still.device).view(frames, tokens).clone()
    for t, r in enumerate(remove):
        if r:
            root[t, order[t, :r]] = root[t - 1, order[t, :r]]
    root = root.flatten()
    own = root == torch.arange(len(root), device=still.device)
    index = own.cumsum(0) - 1  # a survivor's place among the survivors
    return KeepPlan(own.nonzero()[None, :, 0], index[root][None])
