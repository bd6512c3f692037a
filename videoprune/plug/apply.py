"""`apply` a pruning configuration to a stock transformers model, and `remove` it again.

Nothing of the model is copied or rewritten: forward hooks shorten what flows between its own modules, one
registered attention function attends in proportion to merged sizes, and `remove` takes all of it away.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from videoprune.config import PruneConfig, preset
from videoprune.models.inputs import own_settings
from videoprune.models.multi_encoder import calibration_key
from videoprune.plug.attention import FLASH
from videoprune.plug.encoder_pass import VisionRun
from videoprune.plug.families import FAMILIES, Family
from videoprune.plug.llm_door import LanguageHooks, visual_places
from videoprune.plug.patch_embed import as_product, patch_convolutions
from videoprune.prune.over_clip import is_clip_method

_NAME = "videoprune"
_STATE = "_videoprune"
_VISION_ATTENTION = ("sdpa", "eager", *FLASH)


@dataclass(frozen=True)
class Pruned:
    """What the last pass of a pruned model did.

    units: tokens of each frame or image that the encoder made, before and after pruning. layers: visual tokens that
    each LLM layer computed on, by row of the batch. encoder_seconds, llm_seconds: time spent on choosing and merging
    in the last pass of each.
    """

    units: tuple[tuple[int, int], ...]
    layers: tuple[tuple[int, ...], ...]
    encoder_seconds: float
    llm_seconds: float

    @property
    def seconds(self) -> float:
        return self.encoder_seconds + self.llm_seconds


def apply(model: PreTrainedModel, prune: str | PruneConfig) -> PreTrainedModel:
    """Prune `model` from now on; `model(...)` and `model.generate(...)` are called as before.

    model: a stock model of one of the `FAMILIES`. prune: a preset's name or a configuration. With one encoder
    `fusion` keeps the tokens that differ most over the clip, so a preset stands for the same share of tokens as in a
    model of several encoders. Adaptive LLM pruning needs `llm.lambda_`; without it fixed shares with the same
    average are used, and a warning says so. A model that is already pruned is changed to the new configuration.
    -> the same model. Raises ValueError for other models, and for what a family cannot do.
    """
    config = preset(prune) if isinstance(prune, str) else prune
    kind = model.config.model_type
    if kind not in FAMILIES:
        raise ValueError(f"model: model_type={kind!r}; allowed: {', '.join(sorted(FAMILIES))}")
    remove(model)
    setattr(model, _STATE, _Session(FAMILIES[kind](model), config))
    return model


def remove(model: PreTrainedModel) -> PreTrainedModel:
    """Take pruning away: afterwards `model` computes what it did before `apply`, bit for bit."""
    found = model.__dict__.pop(_STATE, None)
    if found is not None:
        found.remove()
    return model


def trace(model: PreTrainedModel) -> Pruned:
    """What the last prefill of a pruned model did. Raises ValueError if nothing was applied to it."""
    return session(model).pruned()


def session(model: PreTrainedModel) -> _Session:
    """What `apply` put in place. Raises ValueError if nothing was applied to it."""
    found: _Session | None = model.__dict__.get(_STATE)
    if found is None:
        raise ValueError("model: not pruned; allowed: a model that `apply` was called on")
    return found


class _Session:
    """Everything that `apply` put in place."""

    def __init__(self, family: Family, config: PruneConfig) -> None:
        self.family, self.encoder = family, config.encoder
        self.keep = config.encoder.keep if config.encoder.method != "none" else 1.0
        self.fusion = config.fusion
        self.fuse = config.fusion.keep if config.fusion.method != "none" else 1.0
        self.seed = config.seed
        self.over_clips = _over_clips(config, family)
        # Visual places (B, S) of the prompts that `generate` was called with.
        self.prompts: Tensor | None = None
        self.images = False  # within a call for the features of images, each of which stands alone
        self.run: VisionRun | None = None
        self.last: VisionRun | None = None
        self.rope: tuple[Tensor, ...] = ()
        self.handles: list[Any] = []
        self.wrapped: list[str] = []
        self.convolutions = patch_convolutions(family.vision) if family.packed else []
        self.blocks = list(family.blocks)
        vision_config: Any = family.vision.config
        self.vision_config, self.vision_kind = vision_config, vision_config._attn_implementation
        self._check()
        usable, tokens = _usable(config, family.model.config)
        self.language = LanguageHooks(
            family.core, family.language_model, family.placeholders, usable.llm, config.seed, tokens
        )
        if self.keep * self.fuse < 1 or family.packed:
            self._hook_vision()

    def _check(self) -> None:
        method = self.encoder.method
        if self.keep < 1 and method not in self.family.methods:
            raise ValueError(
                f"encoder.method={method!r}; allowed for {self.family.model.config.model_type}: "
                f"{', '.join(self.family.methods)}"
            )
        if self.vision_kind not in _VISION_ATTENTION:
            raise ValueError(
                f"attn_implementation={self.vision_kind!r} of the vision encoder; allowed with pruning: "
                f"{', '.join(_VISION_ATTENTION)}"
            )

    def _hook_vision(self) -> None:
        family = self.family
        self.handles.append(family.vision.register_forward_pre_hook(self._begin, with_kwargs=True))
        for i, block in enumerate(self.blocks):
            hook = lambda module, args, kwargs, i=i: self._before_block(i, args, kwargs)  # noqa: E731
            self.handles.append(block.register_forward_pre_hook(hook, with_kwargs=True))
            setattr(family.attention(block), _STATE, (self, i))
        for conv in self.convolutions:
            conv.forward = as_product(conv)  # type: ignore[assignment]
        self.vision_config._attn_implementation = _NAME
        pruned = self.keep * self.fuse < 1
        for module, when, hook in family.hooks(lambda: self.run) if pruned else ():
            register = module.register_forward_hook if when == "post" else module.register_forward_pre_hook
            self.handles.append(register(hook, with_kwargs=True))
        methods = family.wrap(lambda: self.run) if pruned else {}
        if self.over_clips and not family.videos_are_images:
            methods["get_image_features"] = self._noting_images(family.core.get_image_features)
        if self.over_clips and not family.packed:
            family.model.generate = self._noting_prompts(family.model.generate)
        for name, method in methods.items():
            setattr(family.core, name, method)
            self.wrapped.append(name)

    def _noting_prompts(self, generate: Callable[..., Any]) -> Callable[..., Any]:
        """`generate` encodes before it calls the model: the prompts tell whose frames are whose."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            ids = kwargs.get("input_ids", kwargs.get("inputs", args[0] if args else None))
            if isinstance(ids, Tensor) and not ids.is_floating_point():
                self.prompts = visual_places(ids, self.family.placeholders)
            try:
                return generate(*args, **kwargs)
            finally:
                self.prompts = None

        return wrapped

    def _noting_images(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def get_image_features(*args: Any, **kwargs: Any) -> Any:
            self.images = True
            try:
                return method(*args, **kwargs)
            finally:
                self.images = False

        return get_image_features

    def remove(self) -> None:
        self.language.remove()
        for handle in self.handles:
            handle.remove()
        if self.handles:
            for block in self.blocks:
                delattr(self.family.attention(block), _STATE)
        for conv in self.convolutions:
            del conv.forward
        self.vision_config._attn_implementation = self.vision_kind
        for name in self.wrapped:
            delattr(self.family.core, name)
        self.family.model.__dict__.pop("generate", None)

    def pruned(self) -> Pruned:
        layers = self.language.trace
        units: tuple[tuple[int, int], ...] = ()
        if self.last is not None:
            units = tuple(zip(self.last.dense, self.last.kept(), strict=True))
        rows = len(layers.counts[0]) if layers.counts else 0
        inside = self.last.seconds if self.last else 0.0
        return Pruned(units, tuple(layers.row(i) for i in range(rows)), inside, layers.seconds)

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.run = self.last = self.family.new_run(self._start, args, kwargs) if self.family.packed else None

    def _start(
        self,
        lengths: Sequence[int],
        *,
        unit: int,
        prefix: int = 0,
        windows: Sequence[int] | None = None,
        clips: Sequence[int] | None = None,
        grid: tuple[int, int] | None = None,
    ) -> VisionRun:
        return VisionRun(
            self.encoder,
            self.keep,
            self.family.used_blocks,
            lengths,
            unit=unit,
            prefix=prefix,
            seed=self.seed,
            windows=windows,
            clips=(clips or self._clips(len(lengths))) if self.over_clips else None,
            fusion=self.fusion,
            grid=grid,
        )

    def _clips(self, frames: int) -> list[int]:
        """Frames of each clip of a call that does not say: in proportion to the visual tokens of the prompts."""
        visual = self.prompts if self.language.visual is None else self.language.visual
        if self.images:
            return [1] * frames
        if visual is None or visual.shape[0] == 1:
            return [frames]  # one clip, or features asked for without a prompt
        counts = visual.sum(1).tolist()
        shares = [round(c * frames / sum(counts)) for c in counts]
        if sum(shares) != frames:
            raise ValueError(
                f"{frames} frames for prompts with {counts} visual tokens; allowed with budgets over a clip: "
                "clips of one size in a call"
            )
        return [n for n in shares if n]

    def _before_block(self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return (self._before_packed if self.family.packed else self._before_batched)(index, args, kwargs)

    def _before_packed(self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One stretch for the block: frames and windows are the attention function's business."""
        assert self.run is not None
        x = args[0]
        if index == 0:
            self.rope = tuple(kwargs["position_embeddings"])
        else:
            x, rope = self.run.after(index - 1, x, self.rope)
            self.rope = tuple(rope)
        whole = torch.tensor([0, x.shape[0]], dtype=torch.int32, device=x.device)
        changed = {"cu_seqlens": whole, "max_seqlen": x.shape[0], "position_embeddings": self.rope}
        return (x, *args[1:]), {**kwargs, **changed}

    def _before_batched(self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        family: Any = self.family
        if index == 0:
            masks = [m for m in (*args[1:], kwargs.get("attention_mask")) if isinstance(m, Tensor)]
            if masks:
                warnings.warn("padded images: not pruned inside the encoder", stacklevel=2)
                self.run = self.last = None
                return None
            self.run = self.last = family.new_run(self._start, args, kwargs)
            return (family.to_units(args[0]), *args[1:]), kwargs
        if self.run is None or index > self.run.last_block:
            return None
        x, _ = self.run.after(index - 1, args[0].flatten(0, 1))
        # Uneven frames follow each other in one row.
        frames = len(self.run.dense) if self.run.rows.even else 1
        return (x.unflatten(0, (frames, -1)), *args[1:]), kwargs

    def attend(self, module: nn.Module, block: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """q, k, v (F, H, n, d), or (1, H, N, d) packed -> (F, n, H, d)."""
        assert self.run is not None
        frames = q.shape[0]
        q, k, v = (t.transpose(0, 1).flatten(1, 2) for t in (q, k, v))  # (H, N, d), frame by frame
        windowed = self.family.windowed(block)
        out = self.run.attend(block, q, k, v, scale, windowed=windowed, kind=self.vision_kind)
        return out.unflatten(0, (frames, -1))


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """The attention function of pruned vision encoders; outside a pruned pass it is the model's own."""
    session, block = getattr(module, _STATE)
    if session.run is None:
        return _stock(module, session.vision_kind)(module, query, key, value, attention_mask, **kwargs)
    scale = kwargs.get("scaling") or query.shape[-1] ** -0.5
    return session.attend(module, block, query, key, value, scale), None


def _stock(module: nn.Module, kind: str) -> Callable[..., Any]:
    spelled_out = sys.modules[type(module).__module__].eager_attention_forward
    return ALL_ATTENTION_FUNCTIONS.get_interface(kind, spelled_out)


def _over_clips(config: PruneConfig, family: Family) -> bool:
    """Whether frames of a clip are looked at together, so that clips must be told apart."""
    encoder = config.encoder
    inside = bool(encoder.temporal) or encoder.frames == "novelty" or is_clip_method(encoder.method)
    return inside or config.fusion.method != "none" or family.pools


def _usable(config: PruneConfig, model: Any) -> tuple[PruneConfig, float | None]:
    """Fill in the lambda that the model was calibrated to, and the tokens it was found for; without one, adaptive
    pruning becomes fixed shares of the same average."""
    if config.llm.method != "adaptive" or config.llm.lambda_ is not None:
        return config, None
    found = own_settings(model).get("lambdas", {}).get(calibration_key(config))
    if found is not None:
        return config.replace(**{"llm.lambda_": found["lambda"]}), found["tokens"]
    warnings.warn(
        f"llm.lambda_=null: fixed shares that average llm.keep={config.llm.keep:g} are used instead of adaptive ones",
        stacklevel=4,
    )
    return config.replace(**{"llm.method": "fixed"}), None


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)
