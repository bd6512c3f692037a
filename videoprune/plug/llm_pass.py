"""Stage 3: visual tokens leave the LLM between its layers, chosen by the question (METEOR, arXiv 2507.20842).

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
from videoprune.plug.llm_attention import LayerInput, attention_kind, queries_keys, scaling, text_attention
from videoprune.prune.counts import by_lambda, cut_layers, cut_ratios
from videoprune.prune.registry import LLM, LayerTokens
from videoprune.prune.select import variable_top_k

LayerCall = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Prompt:
    """What enters the LLM, padded on the left. dense: bool (B, S), visual places of the whole prompt. places: (B, n),
    where its tokens are in that. visual, valid: bool (B, n), which of them are visual, and which are no padding.

    drafted: tokens at the right end that are another model's guesses, which must not choose. scale: (B,), factor of
    lambda by row, or None. deepstack: features (B, n, W), zero at text, that are added to the hidden states behind the
    first layers, one by layer.
    """

    dense: Tensor
    places: Tensor
    visual: Tensor
    valid: Tensor
    drafted: int = 0
    scale: Tensor | None = None
    deepstack: Sequence[Tensor] = ()


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
        self.counts: list[list[int]] = []  # by layer
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

    def _cut(self, cut: int, layer: nn.Module, hidden: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        """Drop visual tokens before this layer; text stays. Returns the narrowed hidden states (B, n', W)."""
        at, self.before = self.before, None
        if at is None:
            at = LayerInput(layer, hidden, self._narrow(rope))
        with torch.no_grad():
            counts, scores = self._choose(cut, at)
        if torch.equal(counts, self.visual.sum(1)):
            return hidden
        index, chosen = variable_top_k(scores, counts, self.visual)  # (B, Kmax)
        keep = self.valid & ~self.visual
        keep.scatter_(1, torch.where(chosen, index, keep.shape[1] - 1), True)  # the last token is always text
        length = int(keep.sum(1).max())
        # Survivors in their order, at the right end; what is left over on the left is padding.
        kept = keep.to(torch.int8).argsort(dim=1, stable=True)[:, -length:]  # (B, n')
        kept_valid = keep.gather(1, kept)
        self.valid, self.visual = kept_valid, self.visual.gather(1, kept) & kept_valid
        self.order = self.order.gather(1, kept)
        self.stale, self.rope = True, None
        return hidden.gather(1, kept[..., None].expand(-1, -1, hidden.shape[2]))

    def _choose(self, cut: int, at: LayerInput) -> tuple[Tensor, Tensor]:
        """How many visual tokens each row keeps, (B,), and the scores to keep them by, (B, n).

        at: the layer whose attention is asked, and what it computes on."""
        drafted = self.prompt.drafted
        seen = slice(None, -drafted if drafted else None)
        at = LayerInput(at.layer, at.hidden[:, seen], (at.rope[0][:, seen], at.rope[1][:, seen]))
        visual, valid = self.visual[:, seen], self.valid[:, seen]
        tokens = LayerTokens(
            visual=visual,
            valid=valid,
            wanted=self._fixed_counts(cut),
            scale=self.prompt.scale,
            generator=self.generator,
            text_attention=lambda last: text_attention(at, valid, visual, last=last),
            queries_keys=lambda: (*queries_keys(at, at.hidden.shape[1]), scaling(at.layer)),
        )
        counts, scores = LLM[self.config.method].choose(tokens, self.config)
        return counts, torch.nn.functional.pad(scores, (0, drafted)) if drafted else scores

    def _fixed_counts(self, cut: int) -> Tensor:
        """What the cut's share leaves of each row, (B,); all where lambda says how many."""
        if by_lambda(self.config):
            return self.visual.sum(1)
        ratio = cut_ratios(self.config, self.num_layers)[cut]
        wanted = (self.fused * ratio).round().long().clamp(min=1 if ratio else 0)
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
