"""EVS, Efficient Video Sampling (arXiv 2510.14624): drop what has not changed since the last frame.

Shapes: T frames, n tokens of a frame, D width.
"""

from __future__ import annotations

import torch

from videoprune.prune.rivals.choose import spread_mask
from videoprune.prune.rivals.tokens import ClipTokens, over_clip, plan_of_kept
from videoprune.prune.select import top_k_plan
from videoprune.prune.similarity import unit
from videoprune.types import KeepPlan


@over_clip("Efficient Video Sampling, arXiv 2510.14624")
def evs(clip: ClipTokens, keep: int, *, generator: torch.Generator | None = None) -> KeepPlan:
    """The whole first frame, then the tokens least like the same place in the frame before, clip-wide.

    A token's score is 1 - cosine of its x with the x of the same place one frame earlier, the form that vLLM
    runs; the paper takes the L1 distance of the pixels. The highest scores of all frames stay, the others are
    dropped. The method never keeps less than one frame; where `keep` < n, evenly spaced tokens of
    the first frame stay (this project's choice, so that counts are exact). `generator` is not used.
    """
    if keep < clip.per_frame:
        kept = torch.zeros(clip.frames, clip.per_frame, dtype=torch.bool, device=clip.x.device)
        kept[:1] = spread_mask(~kept[:1], torch.tensor([keep], device=clip.x.device))
        return plan_of_kept(kept)
    u = unit(clip.x)
    change = 1 - (u[1:] * u[:-1]).sum(dim=2)  # (T - 1, n)
    first = change.new_full((1, clip.per_frame), torch.inf)
    return top_k_plan(torch.cat((first, change)).flatten()[None], keep)
