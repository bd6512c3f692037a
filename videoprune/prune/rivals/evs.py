"""EVS, Efficient Video Sampling (arXiv 2510.14624): drop what has not changed since the last frame.

Shapes: T frames, n tokens of a frame, D width.
"""

from __future__ import annotations

import torch

from videoprune.prune.rivals.tokens import ClipTokens, over_clip
from videoprune.prune.select import top_k_plan
from videoprune.prune.similarity import unit
from videoprune.types import KeepPlan


@over_clip("Efficient Video Sampling, arXiv 2510.14624")
def evs(clip: ClipTokens, keep: int, *, generator: torch.Generator | None = None) -> KeepPlan:
    """The whole first frame, then the tokens least like the same place in the frame before, clip-wide.

    A token's score is 1 - cosine of its x with the x of the same place one frame earlier, the form that vLLM
    runs; the paper takes the L1 distance of the pixels. The highest scores of all frames stay, the others are
    dropped. vLLM rounds its share of the tokens down, and keeps the first frame alone where that is less than a
    frame. `generator` is not used.
    Raises ValueError if `keep` is less than the tokens of one frame, which the method never thins.
    """
    if keep < clip.per_frame:
        raise ValueError(
            f"keep={keep}; allowed for evs: {clip.per_frame}..{clip.num_tokens}, at least one whole frame "
            f"of {clip.frames} (encoder.keep of {1 / clip.frames:.3g} or more)"
        )
    u = unit(clip.x)
    change = 1 - (u[1:] * u[:-1]).sum(dim=2)  # (T - 1, n)
    first = change.new_full((1, clip.per_frame), torch.inf)
    return top_k_plan(torch.cat((first, change)).flatten()[None], keep)
