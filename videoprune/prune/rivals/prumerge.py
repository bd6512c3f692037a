"""LLaVA-PruMerge+ (arXiv 2403.15388): attention's outliers, a spatial sample beside them, the rest merged.

Shapes: T frames, n tokens of a frame.
"""

from __future__ import annotations

import torch

from videoprune.prune.rivals.choose import even_counts, nearest, spread_mask, top_mask
from videoprune.prune.rivals.tokens import ClipTokens, given, in_clip, nearest_products, over_clip, plan_of
from videoprune.types import KeepPlan


@over_clip("LLaVA-PruMerge, arXiv 2403.15388", needs=("attention", "keys"), products=nearest_products)
def prumerge_plus(
    clip: ClipTokens, keep: int, *, whisker: float = 1.5, generator: torch.Generator | None = None
) -> KeepPlan:
    """Outliers of attention, evenly spaced tokens between them, all others merged into the nearest by keys.

    A token is an outlier if its attention is above Q3 + whisker * (Q3 - Q1) of its frame. A frame keeps its
    outliers, strongest first, and fills its count with tokens evenly spaced, row by row, among the rest.
    The other tokens merge into the kept token of their frame whose key has the highest cosine.
    In the paper the number of outliers decides how many tokens stay, and each kept token takes an
    attention-weighted mean of its nearest neighbours, which may be shared. Ours: exact counts, an even share
    of `keep` for each frame, and each token merges once, by a plain mean. `generator` is not used.
    Raises ValueError if `whisker` is below 0.
    """
    if not whisker >= 0:
        raise ValueError(f"whisker={whisker}; allowed: 0 or more, in interquartile ranges")
    attention, keys = given(clip.attention), given(clip.keys)
    counts = torch.tensor(even_counts(keep, clip.frames), device=clip.x.device)
    low, high = attention.quantile(attention.new_tensor([0.25, 0.75]), dim=1)  # each (T,)
    outlier = attention > (high + whisker * (high - low))[:, None]
    strong = top_mask(attention, counts.minimum(outlier.sum(dim=1)))  # the outliers have the top attention
    kept = strong | spread_mask(~strong, counts - strong.sum(dim=1))
    return plan_of(in_clip(nearest(keys, kept)))
