"""The door of a text model: here a pass is told whether it is a prefill or a step, and visual tokens that the encoder
dropped stay outside, while the model around goes on counting in whole prompts.

A dropped place holds NaN in the embeddings that reach the LLM: whatever a family does on the way (split, reorder,
scatter), the mark goes with it. Such places are cut out, positions included, before the first layer, and the hidden
states that come back have the prompt's full length again (zero where nothing was computed).

Shapes: B rows, S tokens of the prompt, n tokens left, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from videoprune.plug.current_pass import Pass, current, passing
from videoprune.plug.frame_places import places_in_frames
from videoprune.plug.joints import Joints, decoder_layers
from videoprune.plug.kept_keys import PrunedCache
from videoprune.plug.kept_places import behind_prefix, grown_prefix, starts, survivors
from videoprune.plug.llm_attention import attention_kind
from videoprune.plug.llm_pass import LayerCall, Prefill, Prompt
from videoprune.plug.llm_step import Step
from videoprune.plug.prefix import Prefix, Reached
from videoprune.plug.prompt_trace import dense_traces, pruned_traces
from videoprune.prune.merge import rows_at
from videoprune.prune.registry import LLM


class LlmDoor:
    """Hooks on one text model and its layers. owner: whose passes they read."""

    def __init__(self, owner: Any, language_model: nn.Module, joints: Joints) -> None:
        self.owner, self.joints = owner, joints
        self.language_model = language_model
        self.layers = list(decoder_layers(language_model))
        self.handles = [
            language_model.register_forward_pre_hook(self.enter, with_kwargs=True),
            language_model.register_forward_hook(self.leave, with_kwargs=True, always_call=True),
        ]
        for index, layer in enumerate(self.layers):
            hook = LayerHook(self, index)
            self.handles.append(layer.register_forward_pre_hook(hook.before, with_kwargs=True))

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()

    def begin(self, call: Pass, model: Callable[..., Any], **inputs: Any) -> Prefix:
        """What `model` makes in the pass `call` of prompts that end where a question would begin.

        model: the inner model, called with `inputs`; its run ends at the first cut."""
        call.beginnings = found = list[Prefix]()
        cache = {self.joints.cache_names[0]: DynamicCache()}
        with passing(call), suppress(Reached):
            model(**inputs, **cache, use_cache=True)
        return found[0]

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> LayerCall | None:
        now = current(self.owner)
        if now is None:
            return None
        embeds, cache = kwargs.get("inputs_embeds"), self.joints.cache(kwargs)
        if isinstance(cache, PrunedCache):
            tokens: Any = embeds if embeds is not None else args[0] if args else kwargs.get("input_ids")
            return args, self._step(now, kwargs, cache, tokens)
        visual, now.visual = now.visual, None  # the prompt's places are for its prefill alone
        if visual is None or embeds is None:
            return None
        # A pass from before `generate` knows each prompt once; beams and samples repeat it.
        visual = visual.repeat_interleave(len(embeds) // len(visual), 0)
        if cache is not None and cache.get_seq_length():
            self._check_later(now, visual, embeds)
            return None
        dropped = self._dropped(now, embeds)
        prefix, beginnings = now.shared()
        whole = prefix is None and beginnings is None
        if whole and dropped is None and (now.settings.config.llm.method == "none" or not bool(visual.any())):
            dense_traces(now, visual, len(self.layers))
            return None
        attention_kind(module)
        if cache is not None and type(cache) is not DynamicCache:
            raise ValueError(
                f"cache: {type(cache).__name__}; allowed with pruning: DynamicCache, the default"
            )
        if dropped is None:
            dropped = torch.zeros_like(visual)
        if prefix is not None and len(prefix.valid) < len(embeds):
            rows = torch.arange(len(prefix.valid), device=embeds.device)
            prefix = prefix.rows(rows.repeat_interleave(len(embeds) // len(rows)))
        return args, self._prefill(now, kwargs, visual, dropped, prefix)

    def leave(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        now = current(self.owner)
        if now is None:
            return None
        layers, now.layers, now.keys = now.layers, None, None
        beginnings = now.shared()[1]
        if (
            beginnings is not None
            and isinstance(layers, Prefill)
            and (out is not None or layers.arrived is not None)
        ):
            beginnings.append(_beginning(layers, kwargs["inputs_embeds"], self.joints.cache(kwargs)))
            return None
        if out is None or not isinstance(layers, Prefill):  # an error, or a step
            return None
        cache = self.joints.made_cache(out)
        if cache is not None:
            PrunedCache.adopt(cache, layers.kept_keys())
        pruned_traces(now, layers)
        out.last_hidden_state = layers.whole(out.last_hidden_state)
        return out

    def _dropped(self, now: Pass, embeds: Tensor) -> Tensor | None:
        """Places that hold no token, bool (B, S); None if all do. Where nothing may drop, and features that were made
        before are not said to have such places, NaN is the model's own."""
        if not now.settings.drops and not any(call.marked for call in now.calls()):
            return None
        dropped = embeds[..., 0].isnan()
        marks, expected = int(dropped.sum()), now.expected_marks(len(embeds))
        if expected is not None and marks != expected:
            raise ValueError(overflowed(marks, expected, embeds.dtype))
        return dropped if marks else None

    def _check_later(self, now: Pass, visual: Tensor, embeds: Tensor) -> None:
        """Visual tokens behind a prompt that is cached already: only as they are."""
        if embeds.shape[1] > 1 and now.settings.prunes and bool(visual.any()):
            raise ValueError(
                "new images or videos in a later turn, or a prompt in chunks; allowed with pruning: all of them in "
                "the first turn, at once"
            )

    def _step(self, now: Pass, kwargs: dict[str, Any], cache: PrunedCache, tokens: Tensor) -> dict[str, Any]:
        """tokens: ids (B, m) or embeddings (B, m, W)."""
        visual, now.visual = now.visual, None
        if visual is not None:
            self._check_later(now, visual, tokens)
        cached = cache.get_seq_length()
        later = cache.kept.begin_step(kwargs.get("attention_mask"), tokens.shape[1], cached)
        now.layers, now.keys = Step(cache.kept, self.language_model, cached, later), cache.kept
        return {**kwargs, "attention_mask": _own_masks(tokens)}

    def _prefill(
        self, now: Pass, kwargs: dict[str, Any], visual: Tensor, dropped: Tensor, prefix: Prefix | None
    ) -> dict[str, Any]:
        embeds, mask = kwargs["inputs_embeds"], kwargs.get("attention_mask")
        if mask is not None and mask.ndim != 2:
            raise ValueError(f"attention_mask: shape {tuple(mask.shape)}; allowed with pruning: (B, S)")
        attended = torch.ones_like(dropped) if mask is None else mask.bool()
        config = now.settings.config
        prompt = self._prompt(now, kwargs, visual, attended, dropped, prefix)
        now.layers = Prefill(
            config.llm,
            prompt,
            self.language_model,
            len(self.layers),
            config.seed,
            beginning=now.shared()[1] is not None,
        )
        places, kept = prompt.places, prompt.valid
        if prefix is not None:
            places, kept = places[:, prefix.length :], kept[:, prefix.length :]
            cache = self.joints.cache(kwargs)
            for index, (keys, values) in enumerate(zip(prefix.keys, prefix.values, strict=True)):
                cache.update(keys, values, index)
        return {
            **kwargs,
            "inputs_embeds": rows_at(embeds, places).masked_fill(~kept[..., None], 0),
            "position_ids": self._positions(now, kwargs.get("position_ids"), attended, places),
            "attention_mask": _own_masks(embeds),
        }

    def _positions(self, now: Pass, given: Tensor | None, attended: Tensor, places: Tensor) -> Tensor:
        """Positions of the tokens at places (B, n), from those of the whole prompt as the call gives them."""
        if given is None and now.shared()[1] is None:
            return places
        if given is None:  # as `generate` has them, which beginnings do without
            given = attended.int().cumsum(1).sub(1).clamp(min=0)
        at = places.expand(*given.shape[:-2], -1, -1)
        return given.expand(*given.shape[:-2], places.shape[0], -1).gather(-1, at)

    def _prompt(
        self,
        now: Pass,
        kwargs: dict[str, Any],
        visual: Tensor,
        attended: Tensor,
        dropped: Tensor,
        prefix: Prefix | None,
    ) -> Prompt:
        """visual, attended, dropped: bool (B, S)."""
        if prefix is None:
            places, kept = survivors(attended.masked_fill(dropped, False))
        elif now.shared()[1] is None:
            places, kept = behind_prefix(prefix, visual, attended)
        else:
            places, kept = grown_prefix(prefix, attended.masked_fill(dropped, False))
        seen = visual.gather(1, places) & kept
        config, in_frame = now.settings.config, None
        if config.llm.method != "none" and LLM[config.llm.method].needs_frames:
            in_frame = places_in_frames(now, visual).gather(1, places)
        return Prompt(
            visual,
            places,
            seen,
            kept,
            drafted=now.drafted(visual.shape[1]),
            scale=now.settings.lambda_scale(seen),
            deepstack=self._deepstack(kwargs, places),
            in_frame=in_frame,
            start=None if now.shared()[1] is None else starts(attended),
            prefix=prefix,
        )

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
            rows.append(rows_at(full, places))
        return rows


class LayerHook:
    """What happens before one layer: whatever the door has opened."""

    def __init__(self, door: LlmDoor, index: int) -> None:
        self.door, self.index = door, index

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> LayerCall | None:
        now = current(self.door.owner)
        if now is None or now.layers is None:
            return None
        call: LayerCall = now.layers.before_layer(self.index, module, args, kwargs)
        return call


def _beginning(layers: Prefill, embeds: Tensor, cache: Any) -> Prefix:
    """What a prefill of beginnings leaves. embeds: (C, n, W), what entered it, behind a prefix if it had one."""
    if (known := layers.prompt.prefix) is not None:
        embeds = torch.cat([known.embeds, embeds], 1)
    start, held = layers.prompt.start, cache.layers[: layers.shared]
    assert start is not None
    assert layers.rope is not None
    return Prefix(
        layers.config,
        (layers.prompt.places - start[:, None]).clamp(min=0),
        layers.visual,
        layers.valid,
        embeds,
        *layers.rope,
        keys=tuple(layer.keys for layer in held),
        values=tuple(layer.values for layer in held),
        arrived=layers.arrived,
        before=None if layers.before is None else layers.before.hidden,
    )


def visual_places(ids: Tensor, placeholders: Sequence[int]) -> Tensor:
    """Which places of a prompt (..., S) visual tokens take: bool (..., S)."""
    return torch.isin(ids, torch.tensor(placeholders, device=ids.device))


def overflowed(marks: int, expected: int, dtype: torch.dtype) -> str:
    """Why features with NaN at more places than a plan left empty are refused."""
    return (
        f"visual features: NaN at {marks} places, {expected} of them by the plan; the vision encoder or its projector "
        f"overflowed ({dtype}); allowed: a dtype that holds its numbers, such as bfloat16"
    )


def _own_masks(embeds: Tensor) -> Tensor:
    """A mask that the text model hands on untouched; every layer gets its own."""
    return torch.ones(embeds.shape[0], 1, 1, 1, dtype=torch.bool, device=embeds.device)
