"""ToMe, Token Merging (arXiv 2210.09461), at the encoder's end."""

from __future__ import annotations

import torch

from videoprune.prune.rivals.choose import even_counts
from videoprune.prune.rivals.clip import ClipTokens, clip_method, given
from videoprune.prune.rivals.matching import repeated_matching
from videoprune.types import KeepPlan


@clip_method("keys")
def tome(clip: ClipTokens, keep: int, *, r: int = 16, generator: torch.Generator | None = None) -> KeepPlan:
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
