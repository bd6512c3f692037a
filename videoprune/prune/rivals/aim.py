"""AIM, Adaptive Inference of multi-modal LLMs (arXiv 2412.03248), its part before the LLM.

Its pruning inside the LLM is `llm.aim_scores`.
"""

from __future__ import annotations

import torch

from videoprune.prune.rivals.choose import even_counts
from videoprune.prune.rivals.matching import matching_products, repeated_matching
from videoprune.prune.rivals.tokens import ClipTokens, over_clip
from videoprune.types import KeepPlan


@over_clip(
    "AIM, arXiv 2412.03248", products=lambda size, keep: matching_products(size, size.width, keep, None)
)
def aim(clip: ClipTokens, keep: int, *, generator: torch.Generator | None = None) -> KeepPlan:
    """Merge the most similar neighbours within each frame, halving its tokens in each round.

    Tokens in turn form two sets, and each of the first merges into its most similar one of the second, by the
    cosine of x; for video never across frames, so that time keeps its order. The paper uses whole halvings;
    here the last round merges only the best pairs, so that counts are exact. Means are weighted by size.
    Each frame has an even share of `keep`; one without any is dropped. `generator` is not used.
    """
    return repeated_matching(clip.x, even_counts(keep, clip.frames), None)
