"""METEOR, stage 1 (arXiv 2507.20842): which tokens leave at the cuts inside an encoder.

Shallow cuts drop what is most like the mean token, since shallow attention is neither sparse nor stable. Deep
cuts drop what receives little attention. How many is `budget.py`'s matter.

Shapes: B rows, N tokens, P leading protected tokens, H heads, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from videoprune.config import EncoderPrune
from videoprune.prune.budget import meteor_counts
from videoprune.prune.kinds import BlockSize, BlockTokens, Depth, InsideEncoder, Product, attention_products
from videoprune.prune.merge import drop_others
from videoprune.prune.select import top_k_plan
from videoprune.prune.similarity import cosine_to_mean
from videoprune.types import KeepPlan

NUM_CUTS = 3


class Meteor(InsideEncoder):
    """Three cuts, the first by closeness to the mean token, the others by attention."""

    source = "METEOR, arXiv 2507.20842"

    def removals(self, config: EncoderPrune, depth: Depth) -> tuple[int, ...]:
        removed, before = [0] * depth.num_blocks, depth.units
        counts = depth.cuts or meteor_counts(depth.units, depth.final, NUM_CUTS)
        for block, after in zip(cut_blocks(depth.num_blocks), counts, strict=True):
            removed[block] += before - after
            before = after
        return tuple(removed)

    def looks(self, config: EncoderPrune) -> bool:
        return True

    def decide(self, tokens: BlockTokens, remove: int, config: EncoderPrune) -> KeepPlan:
        attention = None if tokens.first else tokens.attention()
        return stage1_plan(tokens.x, tokens.x.shape[1] - remove, attention=attention)

    def operations(self, config: EncoderPrune, size: BlockSize) -> list[Product]:
        return [] if size.first else attention_products(size)


def cut_blocks(num_blocks: int) -> tuple[int, ...]:
    """The blocks behind which METEOR cuts: the last of each third of the depth."""
    return tuple(math.ceil(num_blocks * (cut + 1) / NUM_CUTS) - 1 for cut in range(NUM_CUTS))


def shallow_scores(x: Tensor) -> Tensor:
    """Minus the cosine with the mean token: x (B, N, D) -> (B, N). High: unlike the rest, so it stays."""
    return -cosine_to_mean(x)


def deep_scores(attention: Tensor) -> Tensor:
    """Attention that each token receives, (B, N), or (B, H, N) by head, then its mean -> (B, N).

    From the CLS token, or from all queries in an encoder without one (this project's form).
    """
    if attention.ndim not in (2, 3):
        raise ValueError(f"attention: shape {tuple(attention.shape)}; allowed: (B, N) or (B, H, N)")
    return attention if attention.ndim == 2 else attention.mean(dim=1)


@torch.no_grad()
def stage1_plan(x: Tensor, keep: int, *, attention: Tensor | None = None, protect_first: int = 0) -> KeepPlan:
    """Keep `keep` tokens of x (B, N, D): by `deep_scores` where attention is given, else by `shallow_scores`.

    attention: (B, N - P) or (B, H, N - P), of the tokens after the protected ones.
    protect_first: P leading tokens (CLS) that always stay; `keep` counts them.
    Raises ValueError if `keep` is not in P..N.
    """
    batch, tokens = x.shape[:2]
    if not 0 <= protect_first <= keep <= tokens:
        raise ValueError(
            f"keep={keep}, protect_first={protect_first}; allowed: 0 <= protect_first <= keep <= {tokens}"
        )
    scores = shallow_scores(x[:, protect_first:]) if attention is None else deep_scores(attention)
    if tuple(scores.shape) != (batch, tokens - protect_first):
        raise ValueError(
            f"attention: scores {tuple(scores.shape)}; allowed: {(batch, tokens - protect_first)}"
        )
    plan = top_k_plan(scores, keep - protect_first)
    if protect_first == 0:
        return plan
    first = torch.arange(protect_first, device=x.device).expand(batch, protect_first)
    return drop_others(torch.cat((first, plan.keep + protect_first), dim=1), tokens)
