"""The language side of a pruned stock model: visual tokens that the encoder dropped never enter the LLM, and more
leave between its layers, while the model around it goes on counting in whole prompts.

A dropped place holds NaN in the embeddings that reach the LLM: whatever a family does on the way (split, reorder,
scatter), the mark goes with it. Here such places are cut out, positions included, before the first layer, and the
hidden states that come back have the prompt's full length again (zero where nothing was computed).

Shapes: B rows, S tokens of the prompt, n tokens left, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache

from videoprune.config import LLMPrune
from videoprune.plug.llm_pass import LayerTrace, PrunedRun, check_attention, decoder_layers

_RUN = "_videoprune_run"


def visual_places(ids: Tensor, placeholders: Sequence[int]) -> Tensor:
    """Which places of a prompt (..., S) visual tokens take: bool (..., S)."""
    return torch.isin(ids, torch.tensor(placeholders, device=ids.device))


class LanguageHooks:
    """Hooks on a stock text model. `traces` holds the layer counts of the last prefill."""

    def __init__(
        self,
        core: nn.Module,
        language_model: nn.Module,
        placeholders: tuple[int, ...],
        config: LLMPrune,
        seed: int,
        calibrated: float | None = None,
    ) -> None:
        """calibrated: visual tokens that lambda was found for; for other counts it is scaled. None: it is not."""
        self.calibrated = calibrated
        self.language_model, self.placeholders, self.config, self.seed = (
            language_model,
            placeholders,
            config,
            seed,
        )
        self.layers = decoder_layers(language_model)
        self.trace = LayerTrace()
        self.visual: Tensor | None = None  # bool (B, S) of the coming prefill
        self.active: PrunedRun | None = None
        self.places: Tensor | None = None  # (B, n) places of the prefill's tokens in the prompt
        self.length = 0
        self.notes = False  # whether to note the places below
        self.fused: list[list[int]] = []  # by row, which of the prompt's visual places reach the LLM, from 0
        self.dense: list[int] | None = None  # by row, visual places of the prompt
        self.handles = [
            core.register_forward_pre_hook(self._note_placeholders, with_kwargs=True),
            core.register_forward_hook(self._forget_placeholders),
            language_model.register_forward_pre_hook(self._before, with_kwargs=True),
            language_model.register_forward_hook(self._after, with_kwargs=True),
        ]
        for index, layer in enumerate(self.layers):
            hook = lambda module, args, kwargs, i=index: self._before_layer(i, module, args, kwargs)  # noqa: E731
            self.handles.append(layer.register_forward_pre_hook(hook, with_kwargs=True))

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()

    def _note_placeholders(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = args[0] if args else kwargs.get("input_ids")
        if ids is None:
            embeds = kwargs["inputs_embeds"]
            table = module.get_input_embeddings().weight  # type: ignore[operator]
            self.visual = torch.stack([(embeds == table[p]).all(-1) for p in self.placeholders]).any(0)
        else:
            self.visual = visual_places(ids, self.placeholders)

    def _forget_placeholders(self, module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        self.visual = None

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        cache, embeds = kwargs.get("past_key_values"), kwargs.get("inputs_embeds")
        self.active, self.places = None, None
        if embeds is None or self.visual is None:
            return None
        if cache is not None and cache.get_seq_length():
            return self._later_step(args, kwargs, cache, embeds)
        dropped = embeds[..., 0].isnan()  # (B, S)
        if not dropped.any() and (self.config.method == "none" or not self.visual.any()):
            dense = self.visual.sum(1).tolist()
            self.trace = LayerTrace([dense] * len(self.layers))
            if self.notes:
                self.dense, self.fused = dense, [list(range(n)) for n in dense]
                self.trace.last_places = [list(range(n)) for n in dense]
            return None
        check_attention(module)
        if cache is not None and not isinstance(cache, DynamicCache):
            raise ValueError(
                f"past_key_values={type(cache).__name__}; allowed with pruning: DynamicCache, the default"
            )
        return args, self._prefill(kwargs, embeds, dropped)

    def _prefill(self, kwargs: dict[str, Any], embeds: Tensor, dropped: Tensor) -> dict[str, Any]:
        assert self.visual is not None
        mask = kwargs.get("attention_mask")
        if mask is not None and mask.ndim != 2:
            raise ValueError(f"attention_mask: shape {tuple(mask.shape)}; allowed with pruning: (B, S)")
        attended = torch.ones_like(dropped) if mask is None else mask.bool()
        keep = attended & ~dropped
        length = int(keep.sum(1).max())
        places = keep.to(torch.int8).argsort(dim=1, stable=True)[
            :, -length:
        ]  # survivors in order, at the right end
        positions = kwargs.get("position_ids")
        if positions is None:
            positions = torch.arange(embeds.shape[1], device=embeds.device)[None]
        index = places.expand(*positions.shape[:-2], -1, -1)
        kept = keep.gather(1, places)
        self.trace = LayerTrace(last_places=[] if self.notes else None)
        visual = self.visual.gather(1, places) & kept
        if self.notes:
            rank = (self.visual.long().cumsum(1) - 1).gather(1, places)
            self.dense = self.visual.sum(1).tolist()
            self.fused = [row[seen].tolist() for row, seen in zip(rank, visual, strict=True)]
        self.active = PrunedRun(
            self.config,
            visual,
            kept,
            len(self.layers),
            self.trace,
            None if self.calibrated is None else visual.sum(1) / self.calibrated,
            self.seed,
            deepstack=self._deepstack(kwargs, places),
            attention=self.language_model.config._attn_implementation,  # type: ignore[union-attr, arg-type]
        )
        self.places, self.length = places, embeds.shape[1]
        rows = embeds.gather(1, places[..., None].expand(-1, -1, embeds.shape[2]))
        return {
            **kwargs,
            "inputs_embeds": rows.masked_fill(~kept[..., None], 0),
            "position_ids": positions.expand(*positions.shape[:-2], places.shape[0], -1).gather(-1, index),
            "attention_mask": _own_masks(embeds),
        }

    def _deepstack(self, kwargs: dict[str, Any], places: Tensor) -> list[Tensor]:
        """Take the DeepStack features out of `kwargs`, as rows of the kept tokens, zero at text (B, n, W)."""
        features, at = kwargs.pop("deepstack_visual_embeds", None), kwargs.pop("visual_pos_masks", None)
        if not features:
            return []
        if len(features) >= len(self.layers):
            raise ValueError(
                f"{len(features)} DeepStack features; allowed: fewer than the LLM's {len(self.layers)} layers"
            )
        rows = []
        for one in features:
            full = one.new_zeros(*at.shape, one.shape[-1])
            full[at] = one.nan_to_num()
            rows.append(full.gather(1, places[..., None].expand(-1, -1, one.shape[-1])))
        return rows

    def _later_step(self, args: tuple[Any, ...], kwargs: dict[str, Any], cache: Cache, embeds: Tensor) -> Any:
        self.active = getattr(cache, _RUN, None)
        if self.visual is not None and self.visual.any() and embeds.isnan().any():
            raise ValueError(
                "new images or videos in a later turn; allowed with pruning: all of them in the first"
            )
        if self.active is None:
            return None
        return args, {**kwargs, "attention_mask": _own_masks(embeds)}

    def _before_layer(
        self, index: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        return None if self.active is None else self.active.before_layer(index, module, args, kwargs)

    def _after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        if self.active is None or self.places is None:
            return None
        run, cache = self.active, out.past_key_values
        if cache is not None:
            setattr(cache, _RUN, run)
            missing = self.length - self.places.shape[1]
            cache.get_seq_length = MethodType(_logical_length(missing), cache)
        hidden = out.last_hidden_state
        at = self.places.gather(1, run.order)[..., None].expand(-1, -1, hidden.shape[2])
        full = hidden.new_zeros(hidden.shape[0], self.length, hidden.shape[2])
        out.last_hidden_state = full.scatter(1, at, hidden * run.valid[..., None])
        return out


def _logical_length(missing: int) -> Any:
    """`get_seq_length` in tokens of the prompt: what `generate` counts in, though `missing` are not cached."""

    def get_seq_length(cache: Cache, layer_idx: int = 0) -> int:
        return type(cache).get_seq_length(cache, 0) + missing

    return get_seq_length


def _own_masks(embeds: Tensor) -> Tensor:
    """A mask that the text model hands on untouched; every layer gets its own from `PrunedRun`."""
    return torch.ones(embeds.shape[0], 1, 1, 1, dtype=torch.bool, device=embeds.device)
