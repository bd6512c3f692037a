"""Stage 3: visual tokens leave the LLM between its layers, chosen by the question (METEOR, arXiv 2507.20842), or merge
there into others, as the method of `llm.method` decides.

Hooks on the stock decoder layers narrow what each layer sees: `Prefill` cuts, `llm_step.Step` goes on from what a cache
holds.
Rows of a batch keep different counts: each layer has its own key mask, in the prefill and in every later step, so no
row ever sees padding or what another kept.

Shapes: B rows, S tokens of the prompt, n tokens left at a layer, W width, H query heads, d head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from videoprune.clock import Stopwatch
from videoprune.config import LLMPrune
from videoprune.plug.attention import FLASH, causal_mask
from videoprune.plug.kept_keys import KeptKeys
from videoprune.plug.llm_attention import (
    LayerInput,
    Question,
    attention_kind,
    queries_keys,
    question_tokens,
    scaling,
)
from videoprune.plug.prefix import Prefix, Reached, shared_layers
from videoprune.plug.ragged_rows import RaggedRows
from videoprune.prune.counts import by_lambda, cut_layers, cut_ratios, kept_at_cut
from videoprune.prune.merge import apply_rows, rows_at
from videoprune.prune.registry import LLM, LayerChoice, LayerTokens

LayerCall = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Prompt:
    """What enters the LLM, padded on the left. dense: bool (B, S), visual places of the whole prompt. places: (B, n),
    where its tokens are in that. visual, valid: bool (B, n), which of them are visual, and which are no padding.

    drafted: tokens at the right end that are another model's guesses, which must not choose. scale: (B,), factor of
    lambda by row, or None. deepstack: features (B, n, W), zero at text, that are added to the hidden states behind the
    first layers, one by layer. in_frame: int64 (B, n), each visual token's place in its frame, -1 at all others; None
    where the method does not ask for it. start: (B,), where each prompt begins behind its padding. prefix: what is
    known of the first of the n tokens; then the layers before the first cut are given the others alone, and padding may
    lie between the two.
    """

    dense: Tensor
    places: Tensor
    visual: Tensor
    valid: Tensor
    drafted: int = 0
    scale: Tensor | None = None
    deepstack: Sequence[Tensor] = ()
    in_frame: Tensor | None = None
    start: Tensor | None = None
    prefix: Prefix | None = None


class Prefill:
    """One prefill: which tokens each layer computes on. beginning: the prompts end where the question would begin, and
    the first cut raises `Reached`."""

    def __init__(
        self,
        config: LLMPrune,
        prompt: Prompt,
        language_model: nn.Module,
        num_layers: int,
        seed: int,
        *,
        beginning: bool = False,
    ) -> None:
        self.config, self.prompt, self.num_layers = config, prompt, num_layers
        self.language_model = language_model
        self.visual, self.valid = prompt.visual.bool(), prompt.valid.bool()  # (B, n), of the current layer
        self.order = torch.arange(self.visual.shape[1], device=self.visual.device).expand_as(self.visual)
        self.moved = False  # whether a cut has changed the order
        self.fused = self.visual.sum(1)  # (B,)
        self.clock = Stopwatch()  # of choosing
        # Without a method nothing leaves: a cut would only be ignored in silence otherwise.
        self.cuts = cut_layers(config, num_layers) if config.method != "none" else ()
        self.shared, self.beginning = shared_layers(config, num_layers), beginning
        self.prefix = prompt.prefix  # until what it knows has been taken in
        self.arrived: Tensor | None = None  # of a beginning, at the first cut
        # What the layer before a cut computed on, where the cut asks for it.
        self.before: LayerInput | None = None
        self.generator = torch.Generator().manual_seed(seed)
        self.question: Question | None = None  # whose attention counts
        self.counts: list[list[int]] = []  # by layer
        self.start: list[int] = []  # visual tokens that enter
        self.key_masks: list[Tensor] = []
        self.padded: list[bool] = []
        # From the last cut on.
        self.bias: Tensor | None = None
        self.counts_now: list[int] = []  # visual tokens of each row
        self.lengths: list[int] = []  # all of its tokens
        self.padded_now = False
        self.stale = True
        self.rope: tuple[Tensor, Tensor] | None = None  # at the tokens that are left, until the next cut
        # Of all tokens, where the layers before were told of some alone.
        self.whole_rope: tuple[Tensor, Tensor] | None = None
        self.aligned = self.prefix is None  # whether padding is on the left alone

    def before_layer(
        self, index: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> LayerCall:
        hidden = args[0] if args else kwargs["hidden_states"]
        if index == self.shared:
            hidden = self._at_first_cut(hidden, kwargs["position_embeddings"])
        if 1 <= index <= len(self.prompt.deepstack):
            hidden = self._with_deepstack(hidden, self._at_survivors(self.prompt.deepstack[index - 1]))
        if index == 0:
            self._count(hidden)
        if index in self.cuts:
            with self.clock.on(hidden.device):
                hidden = self._cut(self.cuts.index(index), module, hidden, kwargs["position_embeddings"])
        if self.stale:
            self._look(hidden)
        if self.rope is None:
            self.rope = self._narrow(kwargs["position_embeddings"])
        rope = self.rope if self.prefix is None else kwargs["position_embeddings"]
        self.key_masks.append(self.valid)
        self.padded.append(self.padded_now)
        self.counts.append(self.counts_now)
        if self.config.attention == "previous" and index + 1 in self.cuts:
            self.before = LayerInput(module, self._behind_prefix("before", hidden), self.rope)
        # Without positions: a flash kernel would take survivors with gaps between them for several prompts.
        changed = {"attention_mask": self.bias, "position_embeddings": rope, "position_ids": None}
        if args:
            return (hidden, *args[1:]), {**kwargs, **changed}
        return args, {**kwargs, **changed, "hidden_states": hidden}

    def _at_first_cut(self, hidden: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        """All tokens are wanted from here on. A beginning ends here."""
        if self.beginning:
            self.arrived = self._behind_prefix("arrived", hidden)
            raise Reached
        if self.prefix is None:
            return hidden
        hidden = self._behind_prefix("arrived", hidden)
        self.whole_rope, self.prefix, self.stale = self._whole_rope(rope), None, True
        return hidden

    def _with_deepstack(self, hidden: Tensor, level: Tensor) -> Tensor:
        """hidden: (B, n, W), or of the tokens behind the prefix, which are visual in a beginning alone."""
        if self.prefix is None:
            return hidden + level
        return hidden + level[:, self.prefix.length :] if self.beginning else hidden

    def _behind_prefix(self, name: str, hidden: Tensor) -> Tensor:
        """Hidden states of all tokens: those that the prefix holds under `name`, and these of the others."""
        return hidden if self.prefix is None else torch.cat([getattr(self.prefix, name), hidden], 1)

    def _whole_rope(self, rope: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """cos and sin of all tokens, from those of the tokens behind the prefix."""
        if self.prefix is None:
            return rope if self.whole_rope is None else self.whole_rope
        cos, sin = (part.expand(len(self.visual), -1, -1) for part in rope)
        return torch.cat([self.prefix.cos, cos], 1), torch.cat([self.prefix.sin, sin], 1)

    def kept_keys(self) -> KeptKeys:
        """What the cache holds after the last layer."""
        return KeptKeys(self.key_masks, self.padded, self.prompt.dense.shape[1], self.visual)

    def whole(self, hidden: Tensor) -> Tensor:
        """Hidden states of the last layer (B, n', W) at their places in the prompt, (B, S, W)."""
        if self.prefix is not None:  # no cut has asked for it
            hidden = torch.cat([hidden.new_zeros(self.prefix.embeds.shape), hidden], 1)
        at = self.prompt.places.gather(1, self.order)[..., None].expand(-1, -1, hidden.shape[2])
        full = hidden.new_zeros(*self.prompt.dense.shape, hidden.shape[2])
        return full.scatter(1, at, hidden * self.valid[..., None] if self.padded_now else hidden)

    def _count(self, hidden: Tensor) -> None:
        """What a GPU is asked before the first layer, all at once, since an answer makes it wait. hidden: (B, n, W)."""
        asked, asks = [self.fused, self.valid.sum(1)], None
        if self.cuts and not self.beginning:
            asks = self._askers(self._behind_prefix("embeds", hidden))
            asked.append(asks.view(torch.uint8).argmax(1))  # the first of them
        self.counts_now, self.lengths, *first = torch.stack(asked).tolist()
        self.start = self.counts_now
        if asks is not None:
            self.question = Question.of(asks, asks.shape[1] - min(first[0]))

    def _look(self, hidden: Tensor) -> None:
        """The mask until the next cut. None as mask where the kernel's own causal one is enough; otherwise flash
        kernels take the key mask (B, n), and `sdpa` the lengths of the rows."""
        kind = attention_kind(self.language_model)
        self.padded_now = self._ragged()
        self.bias, self.stale = None, False
        if self.padded_now and self.aligned and kind == "sdpa":
            self.bias = RaggedRows(self.lengths)
        # Without a mask a kernel takes the first query for the first key's.
        elif self.padded_now or kind == "eager" or (self.prefix is not None and kind not in FLASH):
            queries = hidden.shape[1]
            self.bias = self.valid if kind in FLASH else causal_mask(self.valid, hidden.dtype, queries)

    def _ragged(self) -> bool:
        """Whether a row has padding now."""
        return min(self.lengths) < self.valid.shape[1]

    def _askers(self, embeds: Tensor) -> Tensor:
        """Tokens of the question whose attention counts, by the embeddings (B, n, W) that enter the LLM. Drafts are
        left out; the last token asks where nothing else stands behind the clip."""
        seen = self._seen()
        question = question_tokens(self.valid[:, seen], self.visual[:, seen])
        with torch.no_grad():
            return LLM[self.config.method].askers(embeds[:, seen], self.visual[:, seen], question)

    def _seen(self) -> slice:
        """All tokens but the drafts."""
        return slice(None, -self.prompt.drafted if self.prompt.drafted else None)

    def _with_drafts(self, x: Tensor) -> Tensor:
        """x (B, n) of all tokens but the drafts, and zeros for these."""
        return torch.nn.functional.pad(x, (0, self.prompt.drafted)) if self.prompt.drafted else x

    def _cut(self, cut: int, layer: nn.Module, hidden: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        """Take visual tokens away before this layer; text stays. Returns the narrowed hidden states (B, n', W)."""
        at, self.before = self.before, None
        if at is None:
            at = LayerInput(layer, hidden, self.rope or self._narrow(rope))
        choice = self._choose(cut, at, hidden)
        if choice is None:
            return hidden
        left = self._left(cut, choice)
        if left == self.counts_now:
            return hidden
        keep = self._with_drafts(choice.kept).where(self.visual, self.valid)
        if choice.into is not None:
            hidden = self._merged(hidden, keep, choice)
        self.lengths = [n - v + k for n, v, k in zip(self.lengths, self.counts_now, left, strict=True)]
        self.counts_now, length = left, max(self.lengths)
        # Survivors in their order, at the right end; what is left over on the left is padding.
        kept = keep.view(torch.uint8).argsort(dim=1, stable=True)[:, -length:]  # (B, n')
        visual, self.valid = self.visual.gather(1, kept), keep.gather(1, kept)
        self.visual = visual & self.valid if self._ragged() else visual
        self.order = self.order.gather(1, kept)
        self.stale, self.rope, self.aligned, self.moved = True, None, True, True
        return rows_at(hidden, kept)

    def _left(self, cut: int, choice: LayerChoice) -> list[int]:
        """Visual tokens of each row that a choice leaves; asked of a GPU only where the choice does not say."""
        if choice.as_wanted:
            return self._fixed_counts(cut)
        found: list[int] = choice.kept.sum(1).tolist()
        return found

    def _merged(self, hidden: Tensor, keep: Tensor, choice: LayerChoice) -> Tensor:
        """Hidden states (B, n, W) in which visual tokens have merged into others; the rest as it was."""
        assert choice.into is not None
        places = torch.arange(hidden.shape[1], device=hidden.device).expand_as(keep)
        into = places.where(keep, self._with_drafts(choice.into))
        weight = None if choice.weight is None else self._with_drafts(choice.weight)
        if weight is not None:
            weight = weight.where(self.visual, 1.0)
        return apply_rows(hidden, into.where(self.valid, -1), weight)

    def _choose(self, cut: int, at: LayerInput, hidden: Tensor) -> LayerChoice | None:
        """What the method leaves of the visual tokens.

        at: the layer whose attention is asked, and what it computes on. hidden: what arrives at the cut."""
        seen = self._seen()
        at = LayerInput(at.layer, at.hidden[:, seen], (at.rope[0][:, seen], at.rope[1][:, seen]))
        visual, valid, question = self.visual[:, seen], self.valid[:, seen], self.question
        assert question is not None
        places, wanted = self.prompt.in_frame, self._fixed_counts(cut)
        tokens = LayerTokens(
            visual=visual,
            valid=valid,
            wanted=torch.tensor(wanted, device=visual.device),
            scale=self.prompt.scale,
            generator=self.generator,
            text_attention=lambda last: question.attention(
                at, visual, valid if self._ragged() else None, last=last
            ),
            queries_keys=lambda: (*queries_keys(at, at.hidden.shape[1]), scaling(at.layer)),
            hidden=lambda: hidden[:, seen],
            in_frame=None if places is None else places.gather(1, self.order)[:, seen],
            before=[self.start, *self.counts],
            num_layers=self.num_layers,
            same=wanted[0] if len(set(wanted)) == 1 else None,
        )
        return LLM[self.config.method].choose(tokens, self.config)

    def _fixed_counts(self, cut: int) -> list[int]:
        """What the cut's share leaves of each row; all where lambda says how many."""
        if by_lambda(self.config):
            return self.counts_now
        ratio = cut_ratios(self.config, self.num_layers)[cut]
        wanted = (kept_at_cut(n, ratio, self.config) for n in self.start)
        return [min(n, now) for n, now in zip(wanted, self.counts_now, strict=True)]

    def _narrow(self, rope: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """cos and sin (1 or B, S, r) at the surviving places: (B, n, r)."""
        whole = self._whole_rope(rope)
        cos, sin = (self._at_survivors(part.expand(self.order.shape[0], -1, -1)) for part in whole)
        return cos, sin

    def _at_survivors(self, x: Tensor) -> Tensor:
        """The prompt's rows x (B, S, W) of the tokens that are still there: (B, n, W)."""
        return rows_at(x, self.order) if self.moved else x
