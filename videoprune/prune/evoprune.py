"""EvoPrune (arXiv 2603.03681): merge the best cross pairs of a frame between encoder blocks.

The paper has no public code. What it tells: two groups of tokens, a pair score of similarity, diversity and
attention, the best r pairs merge, again and again on the merged tokens. The forms below are this project's.

Shapes: B rows (frames), N tokens, P leading protected tokens, n = N - P, S = ceil(n / 2) sources,
E = floor(n / 2) destinations, D width.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from videoprune.config import EncoderPrune
from videoprune.prune.diversity import mean_of_largest
from videoprune.prune.kinds import (
    BlockSize,
    BlockTokens,
    Depth,
    InsideEncoder,
    Product,
    attention_products,
    pair_products,
)
from videoprune.prune.merge import apply_sized, compose, identity_plan
from videoprune.prune.schedule import merge_counts, smallest_count
from videoprune.prune.similarity import products_of
from videoprune.types import KeepPlan


class EvoPrune(InsideEncoder):
    """Pairs merge after the blocks that `encoder.schedule` names."""

    source = "EvoPrune, arXiv 2603.03681"
    merges = True
    by_content = True

    def removals(self, config: EncoderPrune, depth: Depth) -> tuple[int, ...]:
        p = depth.prefix
        return merge_counts(
            depth.num_blocks,
            depth.units + p,
            depth.final + p,
            config.schedule,
            protected=p,
            merges=config.merges,
        )

    def smallest(self, config: EncoderPrune, num_blocks: int, units: int) -> int:
        return smallest_count(num_blocks, units, config.schedule, config.merges)

    def looks(self, config: EncoderPrune) -> bool:
        return bool(config.critical_ratio or config.lambda_att) or config.metric == "keys"

    def decide(self, tokens: BlockTokens, remove: int, config: EncoderPrune) -> KeepPlan:
        critical = math.floor(config.critical_ratio * tokens.x.shape[1])
        return bipartite_plan(
            tokens.keys() if config.metric == "keys" else tokens.x,
            remove,
            importance=tokens.attention() if critical or config.lambda_att else None,
            lambda_div=config.lambda_div,
            lambda_att=config.lambda_att,
            critical=critical,
            neighbors=config.neighbors,
        )

    def operations(self, config: EncoderPrune, size: BlockSize) -> list[Product]:
        asked = config.lambda_att or math.floor(config.critical_ratio * size.units)
        width = size.width // size.heads if config.metric == "keys" else size.width
        pairs = pair_products(size.frames, size.units, width * size.unit)
        return [*(attention_products(size) if asked else []), pairs]

    def at_end(self, x: Tensor, final: int, config: EncoderPrune) -> tuple[Tensor, Tensor, KeepPlan]:
        """The pair score on finished features, in rounds of at most half; there is no attention to protect by."""
        size, plan = x.new_ones(x.shape[:2]), identity_plan(x.shape[0], x.shape[1], x.device)
        while x.shape[1] > final:
            r = min(x.shape[1] - final, x.shape[1] // 2)
            step = bipartite_plan(x, r, lambda_div=config.lambda_div, neighbors=config.neighbors)
            (x,), size = apply_sized([x], step, size)
            plan = compose(plan, step)
        return x, size, plan

    def at_end_operations(self, config: EncoderPrune, size: BlockSize, final: int) -> list[Product]:
        found, tokens = [], size.units
        while tokens > final:
            found.append(pair_products(size.frames, tokens, size.width))
            tokens -= min(tokens - final, tokens // 2)
        return found


@torch.no_grad()
def bipartite_plan(
    metric: Tensor,
    remove: int,
    *,
    importance: Tensor | None = None,
    lambda_div: float = 0.1,
    lambda_att: float = 0.0,
    critical: int = 0,
    neighbors: int = 5,
    diversity_sign: Literal[1, -1] = 1,
    protect_first: int = 0,
) -> KeepPlan:
    """Merge `remove` tokens of each row into their best partners.

    The tokens after the first `protect_first` are split in turn: even ones are sources, odd ones destinations
    (ToMe, arXiv 2210.09461). A pair scores
        S_ij = cos(x_i, x_j) - diversity_sign * lambda_div * D_i - lambda_att * a_i.
    D_i = 1 - (mean cosine of i to its `neighbors` nearest destinations) is high for a token that stands alone;
    sign 1 keeps such tokens, sign -1 merges them first. Each source has one destination, its best; the `remove`
    sources with the highest scores merge. Sources among the `critical` most important tokens go last of all,
    and only when no other source is left, so that the count is exact. Ties go to the earlier token.

    metric: (B, N, D), what is compared: head-mean keys or hidden states. importance: (B, N), or (B, n)
    without the protected tokens. protect_first: leading tokens (CLS) that never are source or destination.
    -> plan with K = N - remove.
    Raises ValueError if `remove` is not in 0..floor(n / 2), for neighbors below 1, or if importance is
    needed and missing.
    """
    batch, tokens, _ = metric.shape
    free = tokens - protect_first
    if not 0 <= protect_first <= tokens:
        raise ValueError(f"protect_first={protect_first}; allowed: 0..{tokens}, the number of tokens")
    if not 0 <= remove <= free // 2:
        raise ValueError(
            f"remove={remove}; allowed: 0..{free // 2}, half of the {free} tokens that may merge"
        )
    if diversity_sign not in (1, -1):
        raise ValueError(f"diversity_sign={diversity_sign!r}; allowed: 1, -1")
    if neighbors < 1:
        raise ValueError(f"neighbors={neighbors}; allowed: 1 or more")
    if importance is None and (critical > 0 or lambda_att != 0):
        raise ValueError(f"importance=None; needed for critical={critical}, lambda_att={lambda_att}")
    if remove == 0:
        return identity_plan(batch, tokens, metric.device)
    sources, destinations = (slice(first, None, 2) for first in (protect_first, protect_first + 1))
    # (B, S)
    score, partner = best_pairs(metric, sources, destinations, diversity_sign * lambda_div, neighbors)
    late = None
    if importance is not None:
        weight = _without_first(importance, batch, tokens, protect_first)  # (B, n)
        score = score - lambda_att * weight[:, ::2] if lambda_att else score
        late = _top(weight, critical)[:, ::2] if critical > 0 else None
    chosen = _best_sources(score, late, remove)  # (B, remove)
    return merge_pairs(chosen, partner.gather(1, chosen), tokens, sources, destinations)


def best_pairs(
    metric: Tensor, sources: slice, destinations: slice, lambda_div: float, neighbors: int
) -> tuple[Tensor, Tensor]:
    """Each source's best pair: its score, and its destination's number, both (B, S).

    metric: (B, N, D). sources, destinations: which of its tokens, at least one of each. The score is the cosine, plus
    lambda_div times the density: a constant more than by the diversity of `bipartite_plan`, so the order is the same.
    """
    given, x = metric.dtype, metric.detach().to(torch.promote_types(metric.dtype, torch.float32))
    length = x.norm(dim=-1).clamp(min=1e-12)  # (B, N)
    with products_of(given, x.device):
        rows = x[:, sources] @ x[:, destinations].transpose(1, 2)  # (B, S, E)
    rows /= length[:, None, destinations]
    scale = length[:, sources]  # last, where few numbers are left of each row
    best, partner = rows.max(dim=-1)  # the first of equals
    if lambda_div == 0:
        return best / scale, partner
    density = mean_of_largest(rows, min(neighbors, rows.shape[2]))
    return best.add(density, alpha=lambda_div) / scale, partner


def _without_first(importance: Tensor, batch: int, tokens: int, protect_first: int) -> Tensor:
    widths = {tokens, tokens - protect_first}
    if importance.ndim != 2 or importance.shape[0] != batch or importance.shape[1] not in widths:
        allowed = " or ".join(str((batch, w)) for w in sorted(widths, reverse=True))
        raise ValueError(f"importance: shape {tuple(importance.shape)}; allowed: {allowed}")
    return importance[:, importance.shape[1] - (tokens - protect_first) :]


def _top(weight: Tensor, count: int) -> Tensor:
    """True at the `count` largest of each row, ties to the earlier: (B, n)."""
    order = weight.argsort(dim=1, descending=True, stable=True)[:, : max(count, 0)]
    return torch.zeros_like(weight, dtype=torch.bool).scatter(1, order, True)


def _best_sources(score: Tensor, late: Tensor | None, remove: int) -> Tensor:
    """The `remove` sources that merge: (B, remove). Two stable sorts: `late` ones follow all others."""
    order = score.argsort(dim=1, descending=True, stable=True)
    if late is not None:
        order = order.gather(1, late.gather(1, order).to(torch.uint8).argsort(dim=1, stable=True))
    return order[:, :remove]


def merge_pairs(
    source: Tensor,
    destination: Tensor,
    tokens: int,
    sources: slice = slice(None),
    destinations: slice = slice(None),
) -> KeepPlan:
    """The plan that merges tokens source (B, r) into destination (B, r); no token is both.

    sources, destinations: which tokens the two are counted among, all by default.
    """
    batch, remove = source.shape
    stays = torch.ones(batch, tokens, dtype=torch.uint8, device=source.device)
    stays[:, sources].scatter_(1, source, 0)
    keep = stays.argsort(dim=1, descending=True, stable=True)[:, : tokens - remove]  # (B, K), ascending
    into = stays.cumsum(dim=1).sub_(1)  # a survivor's place among the survivors
    into[:, sources].scatter_(1, source, into[:, destinations].gather(1, destination))
    return KeepPlan(keep, into, drops=False)
