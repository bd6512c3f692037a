"""DivPrune (arXiv 2503.02175): keep the tokens that are farthest apart.

Shapes: T frames, n tokens of a frame, D width.
"""

from __future__ import annotations

from typing import Literal

import torch
from einops import rearrange

from videoprune.prune.kinds import Product
from videoprune.prune.rivals.choose import even_counts
from videoprune.prune.rivals.max_min import ENTRIES, max_min_order
from videoprune.prune.rivals.tokens import ClipSize, ClipTokens, over_clip, plan_of_kept
from videoprune.prune.select import first_mask
from videoprune.types import KeepPlan


def _products(size: ClipSize, keep: int) -> list[Product]:
    """Every token against every other, once where all distances fit in memory, else once more for the kept ones."""
    n = size.frames * size.tokens
    again = [] if n**2 <= ENTRIES else [(keep, n, size.width, 1)]
    return [(1, n, size.width, n), *again]


@over_clip("DivPrune, arXiv 2503.02175", products=_products)
def divprune(
    clip: ClipTokens,
    keep: int,
    *,
    scope: Literal["clip", "frame"] = "clip",
    generator: torch.Generator | None = None,
) -> KeepPlan:
    """The max-min diversity problem, solved greedily as the paper does; the other tokens are dropped.

    The first token is the one whose nearest other token is farthest, then always the one whose nearest kept
    token is farthest; the distance is 1 - cosine of x.
    scope: `clip` compares all visual tokens, as the paper does; `frame` each frame for itself with an even
    share of `keep` (this project's variant, cheaper for long clips). `generator` is not used.
    Raises ValueError for another scope.
    """
    if scope not in ("clip", "frame"):
        raise ValueError(f"scope={scope!r}; allowed: clip, frame")
    if scope == "clip":
        x, counts = rearrange(clip.x, "t n d -> 1 (t n) d"), torch.tensor([keep], device=clip.x.device)
    else:
        x, counts = clip.x, torch.tensor(even_counts(keep, clip.frames), device=clip.x.device)
    order = max_min_order(x, int(counts.max()))  # greedy: a smaller choice begins a larger one
    return plan_of_kept(first_mask(order, counts, x.shape[1]))
