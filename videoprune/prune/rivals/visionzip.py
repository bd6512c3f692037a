"""VisionZip (arXiv 2412.04467): in each frame the most attended tokens stay, the rest is summed up in a few.

Shapes: T frames, n tokens of a frame.
"""

from __future__ import annotations

import torch
from torch import Tensor

from videoprune.prune.rivals.choose import even_counts, nearest
from videoprune.prune.rivals.tokens import ClipTokens, given, in_clip, nearest_products, over_clip, plan_of
from videoprune.prune.select import top_mask
from videoprune.types import KeepPlan


@over_clip("VisionZip, arXiv 2412.04467", needs=("attention", "keys"), products=nearest_products)
def visionzip(
    clip: ClipTokens, keep: int, *, dominant: float = 54 / 64, generator: torch.Generator | None = None
) -> KeepPlan:
    """Dominant tokens by attention, contextual tokens by merging on key similarity, each frame for itself.

    Of a frame's c tokens, round(dominant * c) are dominant: those with most attention; nothing merges into
    them. The others are contextual: of the m tokens that are left, in their order, every (m // contextual)-th from the
    first on. Every other token that is left is assigned to the contextual one whose key has the highest cosine to its
    own; a contextual token becomes itself plus the mean of those assigned to it, about twice as long as a token.
    dominant: the paper's 54 of 64 (its 54 counts the CLS token, which has no place here).
    As in the authors' program (github.com/dvlab-research/VisionZip), but that puts the contextual tokens behind the
    dominant ones; here all keep their places. The paper is about images; `keep` is shared evenly over the frames.
    A frame without contextual tokens drops what is left. `generator` is not used.
    Raises ValueError if `dominant` is not in 0..1.
    """
    if not 0 <= dominant <= 1:
        raise ValueError(f"dominant={dominant}; allowed: 0..1, a share of the kept tokens")
    attention, keys = given(clip.attention), given(clip.keys)
    counts = even_counts(keep, clip.frames)
    first = torch.tensor([round(dominant * c) for c in counts], device=clip.x.device)
    top = top_mask(attention, first)
    contextual = _every_nth(~top, torch.tensor(counts, device=clip.x.device) - first)
    own = torch.arange(clip.per_frame, device=clip.x.device)
    target = own.where(top, nearest(keys, contextual))
    return plan_of(in_clip(target), _weights(target, contextual))


def _every_nth(among: Tensor, counts: Tensor) -> Tensor:
    """True at counts[t] of each frame's m True tokens, numbers 0, s, 2 s... with s = m // counts[t]: bool (T, n)."""
    step = (among.sum(dim=1) // counts.clamp(min=1)).clamp(min=1)[:, None]  # (T, 1)
    number = among.cumsum(dim=1) - 1  # of a True token among the True ones
    return among & (number % step == 0) & (number // step < counts[:, None])


def _weights(target: Tensor, contextual: Tensor) -> Tensor:
    """1 for a survivor, 1 / (tokens assigned to the same one) for the others: (T, n)."""
    goal = target.clamp(min=0)
    merged = (target >= 0) & (target != torch.arange(target.shape[1], device=target.device))
    assigned = torch.zeros(target.shape, device=target.device).scatter_add(1, goal, merged.float())
    return (1 / assigned.clamp(min=1)).gather(1, goal).where(merged, 1.0)
