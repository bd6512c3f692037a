"""Stage 3: visual tokens leave the LLM between its layers, chosen by the question (METEOR, arXiv 2507.20842).

Hooks on the stock decoder layers narrow what each layer sees. Rows of a batch keep different counts: each layer
has its own key mask, in the prefill and in every later step, so no row ever sees padding or what another kept.

Shapes: B rows, S tokens of the prompt, n tokens left at a layer, W width, H query heads, d head width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from videoprune.clock import Stopwatch
from videoprune.config import LLMPrune
from videoprune.plug.attention import FLASH
from videoprune.plug.llm_attention import LayerInput, aim_importance, text_attention
from videoprune.prune.adaptive import adaptive_counts, geometric_ratios
from videoprune.prune.select import variable_top_k

SUPPORTED_ATTENTION = ("sdpa", "eager", *FLASH)


@dataclass
class LayerTrace:
    """Visual tokens that each layer computes on: `counts` (layers, rows). clock: of choosing them.

    last_places: by row, which of the prompt's visual tokens, counted from 0, the last layer computes on. None, unless
    a list is given to be filled: it costs a wait for the GPU.
    """

    counts: list[list[int]] = field(default_factory=list)
    clock: Stopwatch = field(default_factory=Stopwatch)
    last_places: list[list[int]] | None = None

    @property
    def seconds(self) -> float:
        """Time spent choosing them."""
        return self.clock.seconds

    def row(self, index: int) -> tuple[int, ...]:
        return tuple(layer[index] for layer in self.counts)


def cut_layers(config: LLMPrune, num_layers: int) -> tuple[int, ...]:
    """Layers, counted from 0, before which tokens leave; never layer 0, whose cache length counts positions."""
    return tuple(sorted({_cut_layer(f, num_layers) for f in config.layers}))


def cut_ratios(config: LLMPrune, num_layers: int) -> tuple[float, ...]:
    """Share of the fused tokens that each of `cut_layers` leaves: `ratios`, or the geometric row that gives `keep`,
    which is also what `adaptive` is reckoned with.

    Where a model is so shallow that several fractions fall on one layer, the last of their ratios counts.
    """
    if not config.ratios or config.method == "adaptive":
        return geometric_ratios(config.keep, cut_layers(config, num_layers), num_layers)
    ends = {_cut_layer(f, num_layers): r for f, r in zip(config.layers, config.ratios, strict=True)}
    return tuple(ends[layer] for layer in sorted(ends))


def _cut_layer(fraction: float, num_layers: int) -> int:
    return min(max(round(fraction * num_layers), 1), num_layers - 1)


@contextmanager
def prune_layers(
    language_model: nn.Module,
    config: LLMPrune,
    visual_mask: Tensor,
    attention_mask: Tensor,
    *,
    scale: Tensor | None = None,
    seed: int = 0,
    trace: LayerTrace | None = None,
) -> Iterator[LayerTrace]:
    """Within the context, the next prefill and the steps after it run pruned; leaving it restores the model.

    visual_mask, attention_mask: bool (B, S) of the prompt, padded on the left. scale: (B,), factor of lambda by row;
    None: 1. seed: of the random control. trace: filled, and given back; None: a new one. Raises ValueError for an
    attention implementation whose masks cannot differ by layer.
    """
    layers = decoder_layers(language_model)
    trace = trace or LayerTrace()
    if config.method == "none":
        dense = visual_mask.sum(1).tolist()
        trace.counts = [dense] * len(layers)
        if trace.last_places is not None:
            trace.last_places += [list(range(n)) for n in dense]
        yield trace
        return
    check_attention(language_model)
    run = PrunedRun(
        config,
        visual_mask,
        attention_mask,
        len(layers),
        trace,
        scale,
        seed,
        attention=language_model.config._attn_implementation,  # type: ignore[union-attr, arg-type]
    )
    hooks = [
        layer.register_forward_pre_hook(
            lambda module, args, kwargs, index=index: run.before_layer(index, module, args, kwargs),
            with_kwargs=True,
        )
        for index, layer in enumerate(layers)
    ]
    try:
        yield trace
    finally:
        for hook in hooks:
            hook.remove()


def check_attention(language_model: nn.Module) -> None:
    """Raises ValueError for an attention implementation whose masks cannot differ by layer."""
    kind = language_model.config._attn_implementation  # type: ignore[union-attr]
    if kind not in SUPPORTED_ATTENTION:
        raise ValueError(
            f"attn_implementation={kind!r}; allowed for LLM pruning: {', '.join(SUPPORTED_ATTENTION)}"
        )


class PrunedRun:
    """The state of one prefill and the steps after it. deepstack: features (B, S, W), zero at text, that the
    model adds to the hidden states after its first layers, one by layer."""

    def __init__(
        self,
        config: LLMPrune,
        visual_mask: Tensor,
        attention_mask: Tensor,
        num_layers: int,
        trace: LayerTrace,
        scale: Tensor | None,
        seed: int,
        deepstack: Sequence[Tensor] = (),
        attention: str = "eager",
    ) -> None:
        self.config, self.trace, self.num_layers = config, trace, num_layers
        self.deepstack = list(deepstack)
        self.attention = attention
        self.visual, self.valid = visual_mask.bool(), attention_mask.bool()  # (B, n), of the current layer
        self.order = torch.arange(visual_mask.shape[1], device=visual_mask.device).expand_as(visual_mask)
        self.fused = self.visual.sum(1)  # (B,)
        self.scale = scale
        self.rank = self.visual.long().cumsum(1) - 1 if trace.last_places is not None else None
        self.cuts = cut_layers(config, num_layers)
        # What the layer before a cut computed on, where the cut asks for it.
        self.before: LayerInput | None = None
        self.generator = torch.Generator().manual_seed(seed)
        self.key_masks: list[Tensor] = []  # by layer, bool (B, keys so far)
        # Of the prefill from the last cut on; asked of the GPU once a cut, since each answer makes it wait.
        self.bias: Tensor | None = None
        self.counts: list[int] = []
        self.padded_now = False
        self.stale = True
        self.padded: list[bool] = []  # by layer, whether any row has padding

    def before_layer(
        self, index: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        if len(self.key_masks) == self.num_layers and (
            index > 0 or hidden.shape[1] < self.key_masks[0].shape[1]
        ):
            kwargs.update(attention_mask=self._step_bias(index, hidden), position_ids=None)
            return args, kwargs
        if 1 <= index <= len(self.deepstack):
            hidden = hidden + self._at_survivors(self.deepstack[index - 1])
        if index in self.cuts:
            with self.trace.clock.on(hidden.device):
                hidden = self._cut(self.cuts.index(index), module, hidden, kwargs["position_embeddings"])
        if self.stale:
            self._look(hidden.dtype)
        rope = self._narrow(kwargs["position_embeddings"])
        # Without positions: a flash kernel would take survivors with gaps between them for several prompts.
        kwargs.update(attention_mask=self.bias, position_embeddings=rope, position_ids=None)
        self.key_masks.append(self.valid)
        self.padded.append(self.padded_now)
        self.trace.counts.append(self.counts)
        if self.config.attention == "previous" and index + 1 in self.cuts:
            self.before = LayerInput(module, hidden, rope)
        if self.trace.last_places is not None and index == self.num_layers - 1:
            self.trace.last_places += self._visual_places()
        if args:
            return (hidden, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": hidden}

    def _look(self, dtype: torch.dtype) -> None:
        """Counts and mask until the next cut. None as mask where the kernel's own causal one is enough; flash kernels
        otherwise take the key mask (B, n)."""
        self.counts, self.padded_now = self.visual.sum(1).tolist(), not bool(self.valid.all())
        self.bias, self.stale = None, False
        if self.padded_now or self.attention == "eager":
            self.bias = self.valid if self.attention in FLASH else _causal_bias(self.valid, dtype)

    def _step_bias(self, index: int, hidden: Tensor) -> Tensor | None:
        """Mask of a later step: the layer's own surviving keys, and the new tokens in their order."""
        batch, new = hidden.shape[:2]
        keys = torch.cat([self.key_masks[index], self.valid.new_ones(batch, new)], 1)
        self.key_masks[index] = keys
        if not self.padded[index] and (new == 1 or self.attention in FLASH):
            return None
        if self.attention in FLASH:
            return keys
        allowed = keys[:, None, :].expand(batch, new, -1).clone()
        future = torch.ones(new, new, dtype=torch.bool, device=hidden.device).triu(1)
        allowed[:, :, -new:] &= ~future
        return _bias(allowed, hidden.dtype)

    def _cut(self, cut: int, layer: nn.Module, hidden: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        """Drop visual tokens before this layer; text stays. Returns the narrowed hidden states (B, n', W)."""
        at, self.before = self.before, None
        if at is None:
            at = LayerInput(layer, hidden, self._narrow(rope))
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
        self.stale = True
        return hidden.gather(1, kept[..., None].expand(-1, -1, hidden.shape[2]))

    def _narrow(self, rope: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """cos and sin (1 or B, S, r) at the surviving places: (B, n, r)."""
        cos, sin = (self._at_survivors(part.expand(self.order.shape[0], -1, -1)) for part in rope)
        return cos, sin

    def _visual_places(self) -> list[list[int]]:
        """Which of the prompt's visual tokens are still there, by row."""
        assert self.rank is not None
        ranks = self.rank.gather(1, self.order)
        return [row[here].tolist() for row, here in zip(ranks, self.visual, strict=True)]

    def _at_survivors(self, x: Tensor) -> Tensor:
        """The prompt's rows x (B, S, W) of the tokens that are still there: (B, n, W)."""
        return x.gather(1, self.order[..., None].expand(-1, -1, x.shape[2]))

    def _choose(self, cut: int, at: LayerInput) -> tuple[Tensor, Tensor]:
        """How many visual tokens each row keeps, (B,), and the scores to keep them by, (B, n).

        at: the layer whose attention is asked, and what it computes on."""
        config = self.config
        if config.method == "adaptive" or config.method == "fixed":
            last = config.queries == "last"
            attention = text_attention(at, self.valid, self.visual, last=last)  # (B, H, n)
            assert config.method == "fixed" or config.lambda_ is not None
            heads = min(config.top_heads, attention.shape[1])
            if self.scale is not None:  # lambda * (scale * attention): the order of a row's tokens stays
                attention = attention * self.scale[:, None, None].to(attention)
            counts, scores = adaptive_counts(
                attention, self.visual, config.lambda_ or 0.0, top_heads=heads, heads=config.heads
            )
            if config.method == "adaptive":
                return counts, scores
        elif config.method == "aim":
            scores = aim_importance(at, self.valid)
        elif config.method == "random":
            scores = torch.rand(self.visual.shape, generator=self.generator).to(at.hidden.device)
        else:
            scores = self._even_scores(cut)
        return self._fixed_counts(cut), scores

    def _fixed_counts(self, cut: int) -> Tensor:
        ratio = cut_ratios(self.config, self.num_layers)[cut]
        wanted = (self.fused * ratio).round().long().clamp(min=1 if ratio else 0)
        return torch.minimum(wanted, self.visual.sum(1))

    def _even_scores(self, cut: int) -> Tensor:
        """Scores whose largest are spread evenly over each row's visual tokens."""
        rank = self.visual.long().cumsum(1) - 1  # (B, n)
        total, wanted = self.visual.sum(1, keepdim=True), self._fixed_counts(cut)[:, None]
        # A token is wanted where the running share of kept tokens steps up.
        steps = ((rank + 1) * wanted) // total.clamp(min=1) > (rank * wanted) // total.clamp(min=1)
        return steps.float()


def decoder_layers(language_model: nn.Module) -> nn.ModuleList:
    for path in ("model.layers", "model.decoder.layers", "layers"):
        try:
            found = language_model.get_submodule(path)
        except AttributeError:
            continue
        if isinstance(found, nn.ModuleList):
            return found
    raise ValueError(
        f"language_model={type(language_model).__name__}; allowed for LLM pruning: a decoder with model.layers"
    )


def _causal_bias(valid: Tensor, dtype: torch.dtype) -> Tensor:
    """Prefill mask (B, 1, n, n) as additive logits: earlier and own place, padding never."""
    n = valid.shape[1]
    causal = torch.ones(n, n, dtype=torch.bool, device=valid.device).tril()
    return _bias(causal & valid[:, None, :], dtype)


def _bias(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    bias = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return bias.masked_fill_(~allowed, torch.finfo(dtype).min)[:, None]
