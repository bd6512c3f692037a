"""VisionZip (arXiv 2412.04467): in each frame the most attended tokens stay, the rest is summed up in a few.

Shapes: T frames, n tokens of a frame.
"""

from __future__ import annotations

import torch

from videoprune.prune.rivals.choose import even_counts, nearest, spread_mask, top_mask
from videoprune.prune.rivals.tokens import ClipTokens, given, in_clip, nearest_products, over_clip, plan_of
from videoprune.types import KeepPlan


@over_clip("VisionZip, arXiv 2412.04467", needs=("attention", "keys"), products=nearest_products)
def visionzip(
    clip: ClipTokens, keep: int, *, dominant: float = 54 / 64, generator: torch.Generator | None = None
) -> KeepPlan:
    """Dominant tokens by attention, contextual tokens by merging on key similarity, each frame for itself.

    Of a frame's c tokens, round(dominant * c) are dominant: those with most attention; nothing merges into
    them. The others are contextual: evenly spaced among the tokens that are left, and every token that is
    left merges into the contextual one whose key has the highest cosine to its own.
    dominant: the paper's 54 of 64 (its 54 counts the CLS token, which has no place here).
    The paper is about images; here `keep` is shared evenly over the frames. A frame without contextual tokens
    drops what is left. `generator` is not used.
    Raises ValueError if `dominant` is not in 0..1.
    """
    if not 0 <= dominant <= 1:
        raise ValueError(f"dominant={dominant}; allowed: 0..1, a share of the kept tokens")
    attention, keys = given(clip.attention), given(clip.keys)
    counts = even_counts(keep, clip.frames)
    first = torch.tensor([round(dominant * c) for c in counts], device=clip.x.device)
    top = top_mask(attention, first)
    contextual = spread_mask(~top, torch.tensor(counts, device=clip.x.device) - first)
    own = torch.arange(clip.per_frame, device=clip.x.device)
    return plan_of(in_clip(own.where(top, nearest(keys, contextual))))
