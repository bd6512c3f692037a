"""Hooks on one vision encoder and its blocks: they give each pass of the encoder its `EncoderPass`, and ask it.

Shapes: F frames, P prefix tokens (CLS), n tokens of a frame, N packed tokens, D width, H heads, d head width.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from videoprune.config import FusionPrune
from videoprune.plug.attention import FLASH, KINDS
from videoprune.plug.current_pass import Pass, current
from videoprune.plug.encoder_goal import EncoderGoal, Layout
from videoprune.plug.encoder_pass import EncoderPass
from videoprune.plug.families.base import Encoder
from videoprune.plug.joints import NAME, check_attention, register_attention
from videoprune.plug.patch_embed import patch_products
from videoprune.plug.replacement import Replacement
from videoprune.prune.registry import OVER_CLIP

_HOOK = "_videoprune"
_Call = tuple[tuple[Any, ...], dict[str, Any]]


class AttentionConfig:
    """A vision configuration as its attention modules see it: in a pass, their attention function is ours.

    Everything else comes from `real`, where `set_attn_implementation` may change the kind at any time.
    """

    def __init__(self, real: Any, encoder: Encoder) -> None:
        self.real, self.encoder = real, encoder

    @property
    def _attn_implementation(self) -> str:
        kind: str = self.real._attn_implementation
        return kind if self.encoder.run() is None else NAME

    def __getattr__(self, name: str) -> Any:
        if name in ("real", "encoder") or name.startswith("__"):  # while a copy is being made
            raise AttributeError(name)
        return getattr(self.real, name)


class EncoderHooks:
    """What is put on one encoder. owner: whose passes they read."""

    def __init__(self, owner: Any, encoder: Encoder) -> None:
        self.owner, self.encoder = owner, encoder
        encoder.owner = owner
        self.blocks = list(encoder.blocks)
        for block in self.blocks:
            check_attention(encoder.attention(block))
        self.products = patch_products(encoder.vision, self._active) if encoder.packed else []
        self.replaced = [Replacement(*one) for one in encoder.replaced()]
        self.handles = [encoder.vision.register_forward_pre_hook(self.begin, with_kwargs=True)]
        for index, block in enumerate(self.blocks):
            attention: Any = encoder.attention(block)
            place = BlockHook(self, index)
            attention.config = AttentionConfig(attention.config, encoder)
            setattr(attention, _HOOK, place)
            self.handles.append(block.register_forward_pre_hook(place.before, with_kwargs=True))
        for module, when, hook in encoder.hooks():
            register = module.register_forward_hook if when == "post" else module.register_forward_pre_hook
            self.handles.append(register(hook, with_kwargs=True))

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()
        for block in self.blocks:
            attention: Any = self.encoder.attention(block)
            attention.config = attention.config.real
            delattr(attention, _HOOK)
        for one in self.replaced:
            one.undo()
        for product in self.products:
            product.replaced.undo()

    def begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A pass of the encoder begins. Frames in a batch are looked at when they come to the first block."""
        now = current(self.owner)
        if now is None:
            return
        now.encoders.pop(self.encoder.name, None)
        if self.encoder.packed:
            self._start(now, args, kwargs)

    def before_packed(self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call | None:
        """One stretch for the block: frames and windows are the attention function's business."""
        run = self.encoder.run()
        if run is None:
            return None
        x = args[0]
        if index == 0:
            run.rope = tuple(kwargs["position_embeddings"])
        else:
            x, rope = run.after(index - 1, x, run.rope)
            run.rope = tuple(rope)
        whole = torch.tensor([0, x.shape[0]], dtype=torch.int32, device=x.device)
        changed = {"cu_seqlens": whole, "max_seqlen": x.shape[0], "position_embeddings": run.rope}
        return (x, *args[1:]), {**kwargs, **changed}

    def before_batched(self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call | None:
        encoder: Any = self.encoder
        if index == 0:
            return self._begin_batched(args, kwargs)
        run = encoder.run()
        if run is None or index > run.last_block:
            return None
        x, _ = run.after(index - 1, args[0].flatten(0, 1))
        # Uneven frames follow each other in one row.
        frames = len(run.rows.units.lengths) if run.rows.even else 1
        return (x.unflatten(0, (frames, -1)), *args[1:]), kwargs

    def attend(
        self, index: int, attention: nn.Module, qkv: tuple[Tensor, Tensor, Tensor], scale: float
    ) -> Any:
        """q, k, v (F, H, n, d), or (1, H, N, d) packed -> (F, n, H, d)."""
        run = self.encoder.run()
        assert run is not None
        frames, kind = qkv[0].shape[0], attention_kind(attention)
        if not self.encoder.packed and run.rows.even and kind not in FLASH and not qkv[0].is_cuda:
            return run.attend_frames(index, qkv, scale, kind=kind)
        q, k, v = (t.transpose(0, 1).flatten(1, 2) for t in qkv)  # (H, N, d), frame by frame
        out = run.attend(index, q, k, v, scale, windowed=self.encoder.windowed(index), kind=kind)
        return out.unflatten(0, (frames, -1))

    def _active(self) -> bool:
        return current(self.owner) is not None

    def _begin_batched(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call | None:
        now, encoder = current(self.owner), self.encoder
        if now is None:
            return None
        now.frames += [0 if now.images else args[0].shape[1]] * args[0].shape[0]
        if not self._prunes(now):
            return None
        if any(isinstance(m, Tensor) for m in (*args[1:], kwargs.get("attention_mask"))):
            warnings.warn("padded images: not pruned inside the encoder", stacklevel=2)
            return None
        self._start(now, args, kwargs)
        return (encoder.to_units(args[0]), *args[1:]), kwargs  # type: ignore[attr-defined]

    def _prunes(self, now: Pass) -> bool:
        """Whether this encoder loses tokens in the pass: in a model of several encoders, to its own budget."""
        return now.settings.drops if now.cuts is None else self.encoder.name in now.cuts

    def _start(self, now: Pass, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        layout = self.encoder.layout(args, kwargs)
        config, settings = now.settings.config, now.settings
        if self.encoder.packed:
            now.frames += layout.lengths
        attention_kind(self.encoder.attention(self.blocks[0]))
        cuts = None if now.cuts is None else now.cuts[self.encoder.name]
        goal = EncoderGoal(
            self.encoder.used_blocks,
            config.encoder,
            settings.keep,
            # Several encoders are fused behind their projectors, by the model itself.
            fusion=config.fusion if now.cuts is None else FusionPrune(),
            cuts=cuts,
            seed=config.seed,
        )
        clips = self._clips(now, layout) if self._over_clips(now) else None
        run = EncoderPass(self.encoder.name, layout, goal, clips, now.generator)
        run.countable = not (now.images and self.encoder.images_differ)
        now.encoders[self.encoder.name] = run
        now.encoded.append(run)

    def _over_clips(self, now: Pass) -> bool:
        """Whether frames of a clip are looked at together, so that clips must be told apart."""
        encoder, fusion = now.settings.config.encoder, now.settings.config.fusion
        inside = bool(encoder.temporal) or encoder.frames == "novelty" or encoder.method in OVER_CLIP
        return now.cuts is None and (inside or fusion.method != "none" or self.encoder.pools)

    def _clips(self, now: Pass, layout: Layout) -> list[int]:
        """Frames of each clip: as the call or the caller says, or in proportion to the visual tokens of the prompts."""
        frames = len(layout.lengths)
        if layout.clips is not None:
            return list(layout.clips)
        if now.clips is not None and sum(now.clips) == frames:
            return list(now.clips)
        if now.images:
            return [1] * frames
        visual = now.prompt()
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


class BlockHook:
    """One block's place in its encoder."""

    def __init__(self, hooks: EncoderHooks, index: int) -> None:
        self.hooks, self.index = hooks, index

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call | None:
        hooks = self.hooks
        how = hooks.before_packed if hooks.encoder.packed else hooks.before_batched
        return how(self.index, args, kwargs)


def attention_kind(attention: Any) -> str:
    """The encoder's attention implementation, as it is set now. Raises ValueError for one that cannot be pruned."""
    kind: str = attention.config.real._attn_implementation
    if kind not in KINDS:
        raise ValueError(
            f"attn_implementation={kind!r} of the vision encoder; allowed with pruning: {', '.join(KINDS)}"
        )
    return kind


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """The attention function of encoders in a pass that prunes."""
    hook: BlockHook = getattr(module, _HOOK)
    scale = kwargs.get("scaling") or query.shape[-1] ** -0.5
    return hook.hooks.attend(hook.index, module, (query, key, value), scale), None


register_attention(_attention)
