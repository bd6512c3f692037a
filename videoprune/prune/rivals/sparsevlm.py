"""SparseVLM (arXiv 2410.04417): text that has to do with the picture rates its tokens; what leaves is recycled.

Shapes: B rows, n tokens, V visual tokens of a row, M of them to be recycled, C clusters, W width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from videoprune.config import LLMPrune
from videoprune.prune.kinds import Product
from videoprune.prune.llm import asking_products, scores_by_text
from videoprune.prune.llm_kinds import CutSize, InsideLLM, LayerChoice, LayerTokens
from videoprune.prune.rivals.density_peaks import density_peaks


@dataclass(frozen=True)
class SparseVLM(InsideLLM):
    """Raters choose the tokens that stay, and the best of the others become the means of a few clusters.

    As the main branch of the authors' code does it by default (github.com/Gumpest/SparseVLMs, version 1.0): raters are
    the tokens behind the clip that are nearer to it than the average, by dot products of the embeddings; a visual
    token's score is their attention to it, mean over raters and heads, in the layer before the cut. Of those that are
    not kept, the best `recycled` share is clustered by density peaks, one cluster for each `per_cluster` of them.
    A cut's share counts the clusters too: with the preset `sparsevlm` a prompt of 576 tokens keeps 300, 200 and 110
    of them as their list says, and the clusters beside them. Differences: there, clusters stand behind the kept tokens
    and positions are counted anew; here each cluster takes the place of its centre and all keep their positions. There,
    noise of 1e-6 breaks ties of the density; here the earlier token counts as denser.
    """

    recycled: float = 0.3
    per_cluster: int = 10

    source = "SparseVLM, arXiv 2410.04417"
    needs_attention = True

    def askers(self, x: Tensor, visual: Tensor, question: Tensor) -> Tensor:
        found = question.clone()
        for row in range(x.shape[0]):
            asks = question[row].nonzero()[:, 0]
            picture = x[row, visual[row]].to(torch.promote_types(x.dtype, torch.float32))
            if len(picture):
                near = (picture @ x[row, asks].to(picture).T).softmax(1).mean(0)  # (asks,)
                raters = near > near.mean()
                found[row, asks] = raters if bool(raters.any()) else True
        return found

    def decide(self, tokens: LayerTokens, config: LLMPrune) -> LayerChoice | None:
        x, scores = tokens.hidden(), scores_by_text(tokens, config)
        kept = torch.zeros_like(tokens.visual)
        into = torch.full_like(kept, -1, dtype=torch.int64)
        for row, wanted in enumerate(tokens.wanted.tolist()):
            places = tokens.visual[row].nonzero()[:, 0]
            best = places[scores[row, places].argsort(descending=True, stable=True)]
            selected, clusters = self.parts(len(best), wanted)
            rest = best[selected:]
            again = rest[: int(len(rest) * self.recycled) + 1] if clusters else rest[:0]
            into[row, best[:selected]] = best[:selected]
            if clusters:
                into[row, again] = again[density_peaks(x[row, again], clusters, clusters)]
            kept[row, places] = into[row, places] == places
        return LayerChoice(kept, into)

    def parts(self, arrived: int, wanted: int) -> tuple[int, int]:
        """Of `arrived` tokens `wanted` stay: how many of them are chosen, and how many are clusters of others."""
        if wanted == arrived:
            return arrived, 0
        for selected in range(wanted, -1, -1):
            if selected + self._clusters(arrived - selected) <= wanted:
                return selected, wanted - selected
        return 0, wanted

    def _clusters(self, left: int) -> int:
        return int((int(left * self.recycled) + 1) / self.per_cluster) + 1

    def operations(self, config: LLMPrune, size: CutSize) -> list[Product]:
        chosen = asking_products(config, size)
        if size.first:
            chosen.append((1, size.visual, size.hidden, size.asking))
        if size.kept < size.visual and size.kept:
            selected, _ = self.parts(size.visual, size.kept)
            again = int((size.visual - selected) * self.recycled) + 1
            chosen.append((1, again, size.hidden, again))
        return chosen
