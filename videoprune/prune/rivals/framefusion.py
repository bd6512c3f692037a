"""FrameFusion (arXiv 2501.01986): tokens like their predecessor merge in the first layers, then importance prunes.

Shapes: B rows, n tokens, V visual tokens of a row, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from videoprune.config import LLMPrune
from videoprune.prune.kinds import Product
from videoprune.prune.llm import asking_products, scores_by_text
from videoprune.prune.llm_kinds import CutSize, InsideLLM, LayerChoice, LayerTokens


class Step(NamedTuple):
    """What one row does at a cut. share: of its tokens that may still leave, so that the average is `llm.keep`."""

    what: Literal["merge", "prune", "rest"]
    share: float


@dataclass(frozen=True)
class FrameFusion(InsideLLM):
    """Merging layer by layer, then one pruning, to an average of `llm.keep` over the layers.

    As the authors' code does it (github.com/thu-nics/FrameFusion, framefusion/main.py): before every layer from the
    first on, a visual token whose hidden state has a cosine of at least `similarity` with the one at the same place of
    the frame before goes into it, runs of such tokens into their first, which becomes the mean. Where fewer than
    `least` of the tokens were alike, merging ends, and before the next layer those stay that text attends to most
    in the layer before, as many as the budget still allows. Where more are alike than the budget asks for, only the
    most similar merge, and that was all. Differences: there, merging and pruning fall between a layer's attention and
    its MLP, behind a first merging before layer 0; here all fall before a layer, so one MLP more sees a token. A budget
    that is overdrawn already is an error there and leaves one token here. There the budget is that of 28 layers.
    """

    similarity: float = 0.6
    least: float = 0.1

    source = "FrameFusion, arXiv 2501.01986"
    needs_attention = True
    needs_frames = True
    by_content = True

    def shares(self, config: LLMPrune, num_layers: int) -> dict[int, float]:
        return dict.fromkeys(range(num_layers), config.keep)

    def decide(self, tokens: LayerTokens, config: LLMPrune) -> LayerChoice | None:
        if config.keep == 1:
            return None
        rows = [list(row) for row in zip(*tokens.before, strict=True)]
        steps = [self.step(row, config.keep, tokens.num_layers) for row in rows]
        if all(s.what == "rest" for s in steps):
            return None
        kept = tokens.visual.clone()
        into = torch.arange(kept.shape[1], device=kept.device).where(kept, -1)
        scores = scores_by_text(tokens, config) if any(s.what == "prune" for s in steps) else None
        x = tokens.hidden() if any(s.what == "merge" for s in steps) else None
        for row, step in enumerate(steps):
            places = tokens.visual[row].nonzero()[:, 0]
            if step.what == "merge":
                assert x is not None
                assert tokens.in_frame is not None
                into[row, places] = places[
                    self.merged(x[row, places], tokens.in_frame[row, places], step.share)
                ]
            elif step.what == "prune":
                assert scores is not None
                stay = max(1, round(len(places) * (1 - step.share)))
                into[row, places[scores[row, places].argsort(descending=True, stable=True)[stay:]]] = -1
        kept &= into == torch.arange(kept.shape[1], device=kept.device)
        return LayerChoice(kept, into)

    def step(self, counts: Sequence[int], average: float, num_layers: int) -> Step:
        """What comes next for a row. counts: its visual tokens at the start, and in each layer so far."""
        finished: Literal["merge", "prune", "rest"] = "merge"
        for layer, (arrived, left) in enumerate(pairwise(counts)):
            share = self._to_leave(counts[: layer + 1], average, num_layers)
            if finished != "merge" or arrived - left >= int(share * arrived):
                return Step("rest", 0.0)
            finished = "prune" if (arrived - left) / arrived < self.least else "merge"
        return Step(finished, self._to_leave(counts, average, num_layers)) if counts[0] else Step("rest", 0.0)

    @staticmethod
    def _to_leave(counts: Sequence[int], average: float, num_layers: int) -> float:
        """Share of the tokens that has to leave now for the layers' average to be `average`, if none leaves later."""
        spent, done = sum(counts[1:]) / counts[0], len(counts) - 1
        left = (num_layers * average - spent) / ((num_layers - done) * counts[-1] / counts[0])
        return min(1.0, max(0.0, 1 - left))

    def merged(self, x: Tensor, in_frame: Tensor, share: float) -> Tensor:
        """Into which of V tokens each one goes, int64 (V,), itself if it stays.

        x: hidden states (V, W). in_frame: (V,), place in the frame, -1: of none. share: of the tokens that may leave.
        """
        order = in_frame.argsort(stable=True)  # place by place, frame after frame
        y = x[order].to(torch.promote_types(x.dtype, torch.float32))
        alike = torch.nn.functional.cosine_similarity(y[1:], y[:-1], dim=1)
        same = (in_frame[order][1:] == in_frame[order][:-1]) & (in_frame[order][1:] >= 0)
        alike = torch.cat([alike.new_full((1,), -2.0), alike.where(same, -2.0)])[: len(y)]  # (V,)
        merges = alike >= self.similarity
        if int(merges.sum()) >= share * len(y):
            best = alike.argsort(descending=True, stable=True)[: int(share * len(y))]
            merges = torch.zeros_like(merges).index_fill(0, best, True)
        first = torch.arange(len(y), device=y.device).where(~merges, 0).cummax(0).values
        return torch.empty_like(order).scatter(0, order, order[first])

    def operations(self, config: LLMPrune, size: CutSize) -> list[Product]:
        return asking_products(config, size) if size.first else []
