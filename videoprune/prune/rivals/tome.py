"""ToMe, Token Merging (arXiv 2210.09461), at the encoder's end."""

from __future__ import annotations

import torch

from videoprune.prune.rivals.choose import even_counts
from videoprune.prune.rivals.matching import matching_products, repeated_matching
from videoprune.prune.rivals.tokens import ClipTokens, given, over_clip
from videoprune.types import KeepPlan

_STEP = 16


@over_clip(
    "ToMe, arXiv 2210.09461",
    needs=("keys",),
    products=lambda size, keep: matching_products(size, size.key_width, keep, _STEP),
)
def tome(
    clip: ClipTokens, keep: int, *, r: int = _STEP, generator: torch.Generator | None = None
) -> KeepPlan:
    """Bipartite soft matching on the keys, r tokens of each frame in a round, until the count is reached.

    The paper merges r tokens in every block of the encoder; there it is `bipartite_plan` with lambda_div=0.
    This wrapper runs the same rounds at the encoder's end, for a comparison at one place of the model: later
    rounds compare size-weighted means of the last block's keys, where the paper computes new ones. Each frame
    has an even share of `keep`; one without any is dropped. `generator` is not used.
    Raises ValueError if `r` is below 1.
    """
    if r < 1:
        raise ValueError(f"r={r}; allowed: 1 or more tokens in a round")
    return repeated_matching(given(clip.keys), even_counts(keep, clip.frames), r)
