"""HoliTom inside the LLM (arXiv 2505.21334): the least attended visual tokens are averaged into those that stay.

Shapes: B rows, n tokens at the cut, V visual tokens of a row, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from videoprune.config import LLMPrune
from videoprune.prune.kinds import Product
from videoprune.prune.llm import asking_products, scores_by_text
from videoprune.prune.llm_kinds import CutSize, InsideLLM, LayerChoice, LayerTokens
from videoprune.prune.select import top_mask
from videoprune.prune.similarity import unit


class HoliTomMerging(InsideLLM):
    """The cut's share, those that text attends to most; each of the others is averaged into the most similar of them.

    As the authors' code does it (github.com/cokeshao/HoliTom, modeling_qwen2.py): similarity is the cosine of hidden
    states, and the averages are taken one after the other in the prompt's order, so that of several tokens the last
    counts for a half. With the preset `holitom`: before layer 18 of 28, the half that the last token attends to least
    in the layer before. The authors count on one clip at a time; rows of a batch choose each for itself here.
    """

    source = "HoliTom, arXiv 2505.21334"
    needs_attention = True

    def decide(self, tokens: LayerTokens, config: LLMPrune) -> LayerChoice:
        kept = top_mask(scores_by_text(tokens, config), tokens.wanted, tokens.visual)
        return into_most_similar(tokens.hidden(), tokens.visual, kept)

    def operations(self, config: LLMPrune, size: CutSize) -> list[Product]:
        return [*asking_products(config, size), (1, size.visual - size.kept, size.hidden, size.kept)]


def into_most_similar(x: Tensor, visual: Tensor, kept: Tensor) -> LayerChoice:
    """x: hidden states (B, n, W). visual, kept: bool (B, n). A row that keeps no visual token drops them all."""
    places = torch.arange(x.shape[1], device=x.device)
    into = places.where(kept, -1)
    weight = torch.ones_like(into, dtype=torch.promote_types(x.dtype, torch.float32))
    for row in range(x.shape[0]):
        stay, leave = kept[row].nonzero()[:, 0], (visual[row] & ~kept[row]).nonzero()[:, 0]
        if not len(stay) or not len(leave):
            continue
        nearest = (unit(x[row, leave]) @ unit(x[row, stay]).T).argmax(1)  # (V - K,)
        into[row, leave] = stay[nearest]
        # The j-th of m tokens that go into one survivor is halved m - j + 1 times, the survivor itself m times.
        count = torch.bincount(nearest, minlength=len(stay))
        weight[row, leave] = 0.5 ** (count[nearest] - _rank(nearest, count)).to(weight)
        weight[row, stay] = 0.5 ** count.to(weight)
    return LayerChoice(kept, into, weight)


def _rank(group: Tensor, count: Tensor) -> Tensor:
    """How many tokens of the same group stand before each one, (M,). count: of each group."""
    order = group.argsort(stable=True)
    start = count.cumsum(0) - count
    return torch.empty_like(group).scatter(0, order, torch.arange(len(group)).to(group) - start[group[order]])
