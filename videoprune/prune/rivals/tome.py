"""ToMe, Token Merging (arXiv 2210.09461): r tokens of a frame merge in every block of the encoder.

Shapes: F frames, n tokens of a frame, r merged ones, K = n - r, d key width.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from videoprune.config import EncoderPrune
from videoprune.prune.evoprune import EvoPrune, best_pairs, merge_pairs
from videoprune.prune.kinds import (
    BlockSize,
    BlockTokens,
    Depth,
    InsideEncoder,
    OrderedPlan,
    Product,
    pair_products,
)
from videoprune.prune.merge import identity_plan
from videoprune.prune.schedule import merge_counts, smallest_count
from videoprune.types import KeepPlan


class ToMe(InsideEncoder):
    """Bipartite soft matching on the head-mean keys, a constant r in every block, the last included.

    As in the authors' program: even tokens are sources and odd ones destinations, CLS counted, so that the split of
    the patches is the other one behind it; a source has one destination, the r with the highest cosines merge by a
    size-weighted mean; the next block splits the row (sources that stayed, destinations) anew. Sources that stayed
    come in their own order behind CLS, the most similar first without it. Later attention is in proportion to size
    (`encoder.proportional_attention`). `encoder.schedule` and `encoder.metric` mean nothing here.

    Differs: tokens merge behind a block, where the program merges between its attention and its MLP, by the same
    keys; a total that no constant r gives is reached exactly, by r - 1 in the last blocks (the program takes what r
    gives); a unit of several patches merges as one token, by all its patches' keys.
    """

    source = "ToMe, arXiv 2210.09461"
    merges = True

    def removals(self, config: EncoderPrune, depth: Depth) -> tuple[int, ...]:
        return merge_counts(
            depth.num_blocks,
            depth.units + depth.prefix,
            depth.final + depth.prefix,
            "constant",
            protected=depth.prefix,
        )

    def smallest(self, config: EncoderPrune, num_blocks: int, units: int) -> int:
        return smallest_count(num_blocks, units, "constant")

    def looks(self, config: EncoderPrune) -> bool:
        return True

    def decide(self, tokens: BlockTokens, remove: int, config: EncoderPrune) -> OrderedPlan:
        return matching_round(tokens.keys(), remove, order=tokens.order, prefix=tokens.prefix)

    def operations(self, config: EncoderPrune, size: BlockSize) -> list[Product]:
        return [pair_products(size.frames, size.units, size.width // size.heads * size.unit)]

    def at_end(self, x: Tensor, final: int, config: EncoderPrune) -> tuple[Tensor, Tensor, KeepPlan]:
        """The cosine of finished features, in rounds of at most half: there are no keys and no blocks."""
        return _AT_END.at_end(x, final, replace(config, lambda_div=0.0))

    def at_end_operations(self, config: EncoderPrune, size: BlockSize, final: int) -> list[Product]:
        return _AT_END.at_end_operations(config, size, final)


_AT_END = EvoPrune()


def matching_round(metric: Tensor, remove: int, *, order: Tensor | None, prefix: int) -> OrderedPlan:
    """Merge the `remove` most similar sources into their destinations; of equal cosines the earlier.

    metric: (F, n, d), in ascending places. order: int64 (F, n), each token's place in the row that is split; None: as
    they lie. prefix: tokens in front, which are counted in the split and never merge. `remove` is at most n // 2.
    """
    frames, tokens = metric.shape[:2]
    if remove == 0:
        return OrderedPlan.of(identity_plan(frames, tokens, metric.device), order)
    row = (
        torch.arange(tokens, device=metric.device).expand(frames, tokens)
        if order is None
        else order.argsort(dim=1)  # (F, n): the places, in the row's order
    )
    x = metric.gather(1, row[..., None].expand_as(metric))
    first = prefix % 2
    own, other = slice(first, None, 2), slice(1 - first, None, 2)
    sources, destinations = row[:, own], row[:, other]  # (F, S), (F, E)
    score, partner = best_pairs(x, own, other, 0.0, 1)
    ranked = score.argsort(dim=1, descending=True, stable=True)
    merged, stayed = ranked[:, :remove], ranked[:, remove:]
    if prefix:
        stayed = stayed.sort(dim=1).values
    target = destinations.gather(1, partner.gather(1, merged))
    plan = merge_pairs(sources.gather(1, merged), target, tokens)
    left = torch.cat([sources.gather(1, stayed), destinations], 1)  # (F, K): places, in the next row's order
    index = plan.into.gather(1, left)  # of survivors: their own
    number = torch.arange(left.shape[1], device=left.device).expand_as(left)
    return OrderedPlan.of(plan, torch.empty_like(index).scatter(1, index, number))
