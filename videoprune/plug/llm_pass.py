"""Stage 3: visual tokens leave the LLM between its layers, chosen by the question (METEOR, arXiv 2507.20842), or merge
there into others, as the method of `llm.method` decides.

Hooks on the stock decoder layers narrow what each layer sees: `Prefill` cuts, `Step` continues from what a cache holds.
Rows of a batch keep different counts: each layer has its own key mask, in the prefill and in every later step, so no
row ever sees padding or what another kept.

Shapes: B rows, S tokens of the prompt, n tokens left at a layer, W width, H query heads, d head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from videoprune.clock import Stopwatch
from videoprune.config import LLMPrune
from videoprune.plug.attention import FLASH, causal_mask
from videoprune.plug.kept_keys import KeptKeys, as_bias
from videoprune.plug.llm_attention import (
    LayerInput,
    attention_kind,
    queries_keys,
    question_tokens,
    scaling,
    text_attention,
)
from videoprune.prune.counts import by_lambda, cut_layers, cut_ratios, kept_at_cut
from videoprune.prune.merge import apply_rows
from videoprune.prune.registry import LLM, LayerChoice, LayerTokens

LayerCall = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Prompt:
    """What enters the LLM, padded on the left. dense: bool (B, S), visual places of the whole prompt. places: (B, n),
    where its tokens are in that. visual, valid: bool (B, n), which of them are visual, and which are no padding.

    drafted: tokens at the right end that are another model's guesses, which must not choose. scale: (B,), factor of
    lambda by row, or None. deepstack: features (B, n, W), zero at text, that are added to the hidden states behind the
    first layers, one by layer. in_frame: int64 (B, n), each visual token's place in its frame, -1 at all others; None
    where the method does not ask for it.
    """

    dense: Tensor
    places: Tensor
    visual: Tensor
    valid: Tensor
    drafted: int = 0
    scale: Tensor | None = None
    deepstack: Sequence[Tensor] = ()
    in_frame: Tensor | None = None


class Prefill:
    """One prefill: which tokens each layer computes on."""

    def __init__(
        self, config: LLMPrune, prompt: Prompt, language_model: nn.Module, num_layers: int, seed: int
    ) -> None:
        self.config, self.prompt, self.num_layers = config, prompt, num_layers
        self.language_model = language_model
        self.visual, self.valid = prompt.visual.bool(), prompt.valid.bool()  # (B, n), of the current layer
        self.order = torch.arange(self.visual.shape[1], device=self.visual.device).expand_as(self.visual)
        self.fused = self.visual.sum(1)  # (B,)
        self.clock = Stopwatch()  # of choosing
        # Without a method nothing leaves: a cut would only be ignored in silence otherwise.
        self.cuts = cut_layers(config, num_layers) if config.method != "none" else ()
        # What the layer before a cut computed on, where the cut asks for it.
        self.before: LayerInput | None = None
        self.generator = torch.Generator().manual_seed(seed)
        self.askers: Tensor | None = None  # (B, n), whose attention counts
        self.counts: list[list[int]] = []  # by layer
        self.start: list[int] = []  # visual tokens that enter, where a cut has asked for them
        self.key_masks: list[Tensor] = []
        self.padded: list[bool] = []
        # From the last cut on; asked of the GPU once a cut, since each answer makes it wait.
        self.bias: Tensor | None = None
        self.counts_now: list[int] = []
        self.padded_now = False
        self.stale = True
        self.rope: tuple[Tensor, Tensor] | None = None  # at the tokens that are left, until the next cut

    def before_layer(
        self, index: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> LayerCall:
        hidden = args[0] if args else kwargs["hidden_states"]
        if 1 <= index <= len(self.prompt.deepstack):
            hidden = hidden + self._at_survivors(self.prompt.deepstack[index - 1])
        if index == 0 and self.cuts:
            self.askers = self._askers(hidden)
        if index in self.cuts:
            with self.clock.on(hidden.device):
                hidden = self._cut(self.cuts.index(index), module, hidden, kwargs["position_embeddings"])
        if self.stale:
            self._look(hidden.dtype)
        if self.rope is None:
            self.rope = self._narrow(kwargs["position_embeddings"])
        rope = self.rope
        self.key_masks.append(self.valid)
        self.padded.append(self.padded_now)
        self.counts.append(self.counts_now)
        if self.config.attention == "previous" and index + 1 in self.cuts:
            self.before = LayerInput(module, hidden, rope)
        # Without positions: a flash kernel would take survivors with gaps between them for several prompts.
        changed = {"attention_mask": self.bias, "position_embeddings": rope, "position_ids": None}
        if args:
            return (hidden, *args[1:]), {**kwargs, **changed}
        return args, {**kwargs, **changed, "hidden_states": hidden}

    def kept_keys(self) -> KeptKeys:
        """What the cache holds after the last layer."""
        behind = self.visual.flip(1).long().cumsum(1).eq(0).sum(1)  # (B,), tokens behind the last visual one
        return KeptKeys(self.key_masks, self.padded, self.prompt.dense.shape[1], int(behind.min()))

    def whole(self, hidden: Tensor) -> Tensor:
        """Hidden states of the last layer (B, n', W) at their places in the prompt, (B, S, W)."""
        at = self.prompt.places.gather(1, self.order)[..., None].expand(-1, -1, hidden.shape[2])
        full = hidden.new_zeros(*self.prompt.dense.shape, hidden.shape[2])
        return full.scatter(1, at, hidden * self.valid[..., None])

    def _look(self, dtype: torch.dtype) -> None:
        """Counts and mask until the next cut. None as mask where the kernel's own causal one is enough; flash kernels
        otherwise take the key mask (B, n)."""
        kind = attention_kind(self.language_model)
        self.counts_now, self.padded_now = self.visual.sum(1).tolist(), not bool(self.valid.all())
        self.bias, self.stale = None, False
        if self.padded_now or kind == "eager":
            self.bias = self.valid if kind in FLASH else causal_mask(self.valid, dtype)

    def _askers(self, embeds: Tensor) -> Tensor:
        """Tokens of the question whose attention counts, by the embeddings (B, n, W) that enter the LLM; never drafts,
        but the last token where nothing else stands behind the clip."""
        seen = self._seen()
        question = question_tokens(self.valid[:, seen], self.visual[:, seen])
        with torch.no_grad():
            asks = LLM[self.config.method].askers(embeds[:, seen], self.visual[:, seen], question)
        return torch.nn.functional.pad(asks, (0, self.prompt.drafted))

    def _seen(self) -> slice:
        """All tokens but the drafts."""
        return slice(None, -self.prompt.drafted if self.prompt.drafted else None)

    def _cut(self, cut: int, layer: nn.Module, hidden: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        """Take visual tokens away before this layer; text stays. Returns the narrowed hidden states (B, n', W)."""
        at, self.before = self.before, None
        if at is None:
            at = LayerInput(layer, hidden, self._narrow(rope))
        choice = self._choose(cut, at, hidden)
        if choice is None or torch.equal(choice.kept, self.visual[:, self._seen()]):
            return hidden
        drafted = self.prompt.drafted
        keep = (self.valid & ~self.visual) | torch.nn.functional.pad(choice.kept, (0, drafted))
        if choice.into is not None:
            hidden = self._merged(hidden, keep, choice)
        length = int(keep.sum(1).max())
        # Survivors in their order, at the right end; what is left over on the left is padding.
        kept = keep.to(torch.int8).argsort(dim=1, stable=True)[:, -length:]  # (B, n')
        kept_valid = keep.gather(1, kept)
        self.valid, self.visual = kept_valid, self.visual.gather(1, kept) & kept_valid
        self.order = self.order.gather(1, kept)
        assert self.askers is not None
        self.askers = self.askers.gather(1, kept)
        self.stale, self.rope = True, None
        return hidden.gather(1, kept[..., None].expand(-1, -1, hidden.shape[2]))

    def _merged(self, hidden: Tensor, keep: Tensor, choice: LayerChoice) -> Tensor:
        """Hidden states (B, n, W) in which visual tokens have merged into others; the rest as it was."""
        assert choice.into is not None
        places = torch.arange(hidden.shape[1], device=hidden.device).expand_as(keep)
        drafted = self.prompt.drafted
        into = places.where(keep, torch.nn.functional.pad(choice.into, (0, drafted)))
        weight = None if choice.weight is None else torch.nn.functional.pad(choice.weight, (0, drafted))
        if weight is not None:
            weight = weight.where(self.visual, 1.0)
        return apply_rows(hidden, into.where(self.valid, -1), weight)

    def _choose(self, cut: int, at: LayerInput, hidden: Tensor) -> LayerChoice | None:
        """What the method leaves of the visual tokens.

        at: the layer whose attention is asked, and what it computes on. hidden: what arrives at the cut."""
        seen = self._seen()
        at = LayerInput(at.layer, at.hidden[:, seen], (at.rope[0][:, seen], at.rope[1][:, seen]))
        visual, valid = self.visual[:, seen], self.valid[:, seen]
        assert self.askers is not None
        asks, places = self.askers[:, seen], self.prompt.in_frame
        self.start = self.start or (self.counts[0] if self.counts else self.fused.tolist())
        tokens = LayerTokens(
            visual=visual,
            valid=valid,
            wanted=self._fixed_counts(cut),
            scale=self.prompt.scale,
            generator=self.generator,
            text_attention=lambda last: text_attention(at, valid, visual, None if last else asks),
            queries_keys=lambda: (*queries_keys(at, at.hidden.shape[1]), scaling(at.layer)),
            hidden=lambda: hidden[:, seen],
            in_frame=None if places is None else places.gather(1, self.order)[:, seen],
            before=[self.start, *self.counts],
            num_layers=self.num_layers,
        )
        return LLM[self.config.method].choose(tokens, self.config)

    def _fixed_counts(self, cut: int) -> Tensor:
        """What the cut's share leaves of each row, (B,); all where lambda says how many."""
        if by_lambda(self.config):
            return self.visual.sum(1)
        ratio = cut_ratios(self.config, self.num_layers)[cut]
        wanted = torch.tensor(
            [kept_at_cut(n, ratio, self.config) for n in self.start], device=self.visual.device
        )
        return torch.minimum(wanted, self.visual.sum(1))

    def _narrow(self, rope: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """cos and sin (1 or B, S, r) at the surviving places: (B, n, r)."""
        cos, sin = (self._at_survivors(part.expand(self.order.shape[0], -1, -1)) for part in rope)
        return cos, sin

    def _at_survivors(self, x: Tensor) -> Tensor:
        """The prompt's rows x (B, S, W) of the tokens that are still there: (B, n, W)."""
        return x.gather(1, self.order[..., None].expand(-1, -1, x.shape[2]))


@dataclass(frozen=True)
class Step:
    """Tokens behind a pruned prompt: each layer sees its own survivors, and what came after them.

    cached: tokens before this step, in tokens of the whole text. later: which of those behind the prompt are no
    padding, bool (B, m); None: all of them. masks: made so far, by the mask of the prompt's keys, which layers between
    two cuts share.
    """

    keys: KeptKeys
    language_model: nn.Module
    cached: int
    later: Tensor | None
    masks: dict[int, Tensor | None] = field(default_factory=dict)

    def before_layer(
        self, index: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> LayerCall:
        hidden = args[0] if args else kwargs["hidden_states"]
        shared = id(self.keys.masks[index])
        if shared not in self.masks:
            kind = attention_kind(self.language_model)
            mask = self.keys.step_mask(index, hidden.shape[1], self.cached, self.later, kind)
            self.masks[shared] = as_bias(mask, hidden.dtype)
        return args, {**kwargs, "attention_mask": self.masks[shared], "position_ids": None}
