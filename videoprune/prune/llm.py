"""The methods that drop visual tokens inside the LLM, by the question or, as controls, without looking.

FastV (arXiv 2403.06764) and PyramidDrop (arXiv 2410.17247) are `Fixed` with their own layers, ratios and queries.

Shapes: B rows, n tokens at the cut, H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor

from videoprune.config import LLMPrune
from videoprune.prune.adaptive import adaptive_counts, text_scores
from videoprune.prune.kinds import Product
from videoprune.prune.llm_kinds import CutSize, LayerTokens, Ranking
from videoprune.prune.rivals.llm import AIM_ITERATIONS, aim_scores


class Fixed(Ranking):
    """The cut's share, those that text attends to most."""

    source = "FastV, arXiv 2403.06764; PyramidDrop, arXiv 2410.17247"
    needs_attention = True

    def rank(self, tokens: LayerTokens, config: LLMPrune) -> tuple[Tensor, Tensor]:
        return tokens.wanted, scores_by_text(tokens, config)

    def operations(self, config: LLMPrune, size: CutSize) -> list[Product]:
        return asking_products(config, size)


class Adaptive(Fixed):
    """As many as lambda times the text's attention says, those that it attends to most."""

    source = "METEOR, arXiv 2507.20842"
    by_lambda = True

    def rank(self, tokens: LayerTokens, config: LLMPrune) -> tuple[Tensor, Tensor]:
        return by_text(tokens, config)


class Aim(Ranking):
    """The cut's share, those that rank highest by PageRank over the attention among all tokens."""

    source = "AIM, arXiv 2412.03248"
    needs_attention = True

    def rank(self, tokens: LayerTokens, config: LLMPrune) -> tuple[Tensor, Tensor]:
        q, k, scale = tokens.queries_keys()
        return tokens.wanted, aim_scores(q, k, scale=scale, valid=tokens.valid)

    def operations(self, config: LLMPrune, size: CutSize) -> list[Product]:
        n = size.tokens
        return [*_logits(size, n), (AIM_ITERATIONS * size.heads, 1, n, n)]


class RandomTokens(Ranking):
    """The cut's share, drawn from the generator on its own device. A row's draw does not depend on the rows beside it:
    each starts from the same state."""

    source = "control: drawn without replacement"

    def rank(self, tokens: LayerTokens, config: LLMPrune) -> tuple[Tensor, Tensor]:
        generator = tokens.generator or torch.Generator()
        state, drawn = generator.get_state(), torch.zeros(tokens.visual.shape)
        for row, visual in zip(drawn, tokens.visual.cpu(), strict=True):
            generator.set_state(state)
            row[visual] = torch.rand(int(visual.sum()), generator=generator, device=generator.device).cpu()
        generator.set_state(state)
        torch.rand(1, generator=generator, device=generator.device)  # the next cut draws anew
        return tokens.wanted, drawn.to(tokens.visual.device)


class EvenTokens(Ranking):
    """The cut's share, evenly spread over each row's visual tokens."""

    source = "control: evenly spaced"

    def rank(self, tokens: LayerTokens, config: LLMPrune) -> tuple[Tensor, Tensor]:
        rank = tokens.visual.long().cumsum(1) - 1  # (B, n)
        total, wanted = tokens.visual.sum(1, keepdim=True).clamp(min=1), tokens.wanted[:, None]
        # A token is wanted where the running share of kept tokens steps up.
        steps = ((rank + 1) * wanted) // total > (rank * wanted) // total
        return tokens.wanted, steps.float()


def by_text(tokens: LayerTokens, config: LLMPrune) -> tuple[Tensor, Tensor]:
    """METEOR's counts (B,) by lambda (0 where the configuration has none), and the text's attention (B, n)."""
    attention = tokens.text_attention(config.queries == "last")  # (B, H, n)
    if tokens.scale is not None:  # lambda * (scale * attention): the order of a row's tokens stays
        attention = attention * tokens.scale[:, None, None].to(attention)
    heads = min(config.top_heads, attention.shape[1])
    return adaptive_counts(
        attention, tokens.visual, config.lambda_ or 0.0, top_heads=heads, heads=config.heads
    )


def scores_by_text(tokens: LayerTokens, config: LLMPrune) -> Tensor:
    """The text's attention to each token, (B, n), of the heads that count."""
    attention = tokens.text_attention(config.queries == "last")
    heads = min(config.top_heads, attention.shape[1])
    return text_scores(attention, tokens.visual, top_heads=heads, heads=config.heads)


def asking_products(config: LLMPrune, size: CutSize) -> list[Product]:
    """What `scores_by_text` multiplies: the logits of those that ask, and the mean over them."""
    q = 1 if config.queries == "last" else size.asking
    return [*_logits(size, q), (size.heads, 1, q, size.tokens)]


def _logits(size: CutSize, queries: int) -> list[Product]:
    """Queries of the last `queries` tokens, keys of all, and their products, computed again for the choice."""
    return [
        (1, queries, size.hidden, size.heads * size.head_dim),
        (1, size.tokens, size.hidden, size.kv_heads * size.head_dim),
        (size.heads, queries, size.head_dim, size.tokens),
    ]
