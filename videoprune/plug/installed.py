"""What `apply` puts on a stock model: hooks, and the doors where a pass begins.

A pass begins where a call comes in: `generate`, the inner model's `forward`, or a call for visual features alone.
Everything here is found again through the model that is called, so a copy of a model (deepcopy, pickle) has hooks of
its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from videoprune.plug.current_pass import Pass, close_pass, current, open_pass, passing
from videoprune.plug.encoder_hooks import EncoderHooks
from videoprune.plug.families import Family
from videoprune.plug.joints import check_core, text_joints
from videoprune.plug.llm_door import LlmDoor, visual_places
from videoprune.plug.replacement import Replacement
from videoprune.plug.settings import Settings

_STATE = "_videoprune"
_FEATURES = ("get_image_features", "get_video_features")


class Installed:
    """Everything that is put on one model. default: what calls are made with that begin outside a pass; None: as the
    stock model's."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self.default: Settings | None = None
        core = family.core
        check_core(core, _FEATURES)
        joints = text_joints(family.language_model)
        self.encoder = EncoderHooks(self, family)
        self.door = LlmDoor(self, family.language_model, joints)
        self.handles = [
            core.register_forward_pre_hook(self.enter, with_kwargs=True),
            core.register_forward_hook(self.leave, with_kwargs=True, always_call=True),
        ]
        self.replaced = [Replacement(family.model, "generate", self.generate)]
        for name in _FEATURES:
            if hasattr(core, name):
                images = name == "get_image_features" and not family.videos_are_images
                self.replaced.append(Replacement(core, name, FeatureDoor(self, images).features))

    @classmethod
    def on(cls, model: Any, family: Family) -> Installed:
        found = cls(family)
        setattr(model, _STATE, found)
        return found

    def remove(self) -> None:
        self.encoder.remove()
        self.door.remove()
        for handle in self.handles:
            handle.remove()
        for one in self.replaced:
            one.undo()
        del self.family.model.__dict__[_STATE]

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The inner model is called: which places of the prompt are visual is known here."""
        settings = self._settings()
        if settings is not None:
            open_pass(Pass(self, settings, visual=self._visual(module, args, kwargs), door=module))

    def leave(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        now = current(self)
        if now is not None and now.door is module:
            close_pass(now)

    def generate(self, stock: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """`generate` encodes before it calls the model, and drafts behind the prompt: both need to know the prompt."""
        settings = self._settings()
        if settings is None:
            return stock(*args, **kwargs)
        _check_generation(settings, self.family.model, args, kwargs)
        ids = kwargs.get("input_ids", kwargs.get("inputs", args[0] if args else None))
        visual = length = None
        if isinstance(ids, Tensor) and not ids.is_floating_point():
            visual, length = visual_places(ids, self.family.placeholders), ids.shape[1]
        with passing(Pass(self, settings, visual=visual, prompt_tokens=length)):
            return stock(*args, **kwargs)

    def _settings(self) -> Settings | None:
        """What a call is made with: as the call around it, else as `apply` said."""
        outer = current(self)
        return self.default if outer is None else outer.settings

    def _visual(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        ids = args[0] if args else kwargs.get("input_ids")
        if ids is not None:
            return visual_places(ids, self.family.placeholders)
        embeds = kwargs["inputs_embeds"]
        # Asked of the module: its weight may lie elsewhere between calls (offloading).
        marks = module.get_input_embeddings()(  # type: ignore[operator]
            torch.tensor(self.family.placeholders, device=embeds.device)
        )
        return torch.stack([(embeds == mark).all(-1) for mark in marks]).any(0)


class FeatureDoor:
    """The way to visual features, from the model itself or from a caller who has no prompt yet."""

    def __init__(self, installed: Installed, images: bool) -> None:
        self.installed, self.images = installed, images

    def features(self, stock: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        installed = self.installed
        now, settings = current(installed), installed.default
        if now is not None:
            before, now.images = now.images, self.images
            try:
                return stock(*args, **kwargs)
            finally:
                now.images = before
        if settings is None:
            return stock(*args, **kwargs)
        with passing(Pass(installed, settings, images=self.images)):
            return stock(*args, **kwargs)


def installed_on(model: Any) -> Installed | None:
    """What is put on `model`, or None."""
    return getattr(model, "__dict__", {}).get(_STATE)


def _check_generation(settings: Settings, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Ways to generate that pruning cannot follow. Raises ValueError that names the argument."""
    if not settings.prunes:
        return
    config = kwargs.get("generation_config") or model.generation_config

    def asked(name: str) -> Any:
        return kwargs[name] if name in kwargs else getattr(config, name, None)

    if asked("prefill_chunk_size"):
        raise ValueError(
            f"prefill_chunk_size={asked('prefill_chunk_size')}; allowed with pruning: None, the prompt at once"
        )
    if asked("use_cache") is False and settings.config.llm.method != "none":
        raise ValueError("use_cache=False; allowed with pruning in the LLM: True, or llm.method=none")
    if asked("cache_implementation") not in (None, "dynamic"):
        raise ValueError(
            f"cache_implementation={asked('cache_implementation')!r}; allowed with pruning: 'dynamic', the default"
        )
