"""Vision encoders as embed, blocks, finish: stock transformers modules, run block by block so that tokens can
leave or merge in between.

Shapes: F frames, P prefix tokens (CLS, registers), N patch tokens, D width, H heads, d head width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel


@dataclass(frozen=True)
class EncoderLayout:
    """Where a family of ViTs keeps its parts: attribute paths below the model."""

    embed: str
    blocks: str
    attention: str
    before: str = ""
    after: str = ""
    prefix: int = 0


LAYOUTS = {
    "siglip_vision_model": EncoderLayout("embeddings", "encoder.layers", "self_attn", after="post_layernorm"),
    "clip_vision_model": EncoderLayout(
        "embeddings", "encoder.layers", "self_attn", before="pre_layrnorm", prefix=1
    ),
    "dinov2": EncoderLayout("embeddings", "encoder.layer", "attention", after="layernorm", prefix=1),
}
CONVOLUTIONAL = ("convnext", "convnextv2")


@dataclass
class CapturedHeads:
    """Queries and keys of one attention module, filled by `capture` while the block runs: (F, H, P+N, d)."""

    queries: Tensor | None = None
    keys: Tensor | None = None


@dataclass(frozen=True)
class VisionTower:
    """One encoder behind a common face: `grid` is the rows and columns of its patch tokens for a frame."""

    name: str
    model: PreTrainedModel
    layout: EncoderLayout | None
    grid: tuple[int, int]
    width: int

    @property
    def dense(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def prefix(self) -> int:
        return self.layout.prefix if self.layout else 0

    @property
    def num_blocks(self) -> int:
        """Blocks that tokens can leave between; 0 for a convolutional encoder."""
        return len(self._part(self.layout.blocks)) if self.layout else 0

    @property
    def scale(self) -> float:
        module = self._attention(0)
        return getattr(module, "scale", None) or module.scaling

    def embed(self, pixel_values: Tensor) -> Tensor:
        """(F, 3, S, S) normalised pixels -> (F, P+N, D)."""
        assert self.layout is not None
        x = self._part(self.layout.embed)(pixel_values)
        return self._part(self.layout.before)(x) if self.layout.before else x

    def block(self, index: int, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Run block `index`. `bias` (F, P+N) is added to the attention logits of each key."""
        assert self.layout is not None
        mask = None if bias is None else bias[:, None, None, :].expand(-1, 1, x.shape[1], -1)
        return self._part(self.layout.blocks)[index](x, attention_mask=mask)

    def finish(self, x: Tensor) -> Tensor:
        """(F, P+K, D) -> (F, K, D): the last norm, without prefix tokens."""
        assert self.layout is not None
        x = self._part(self.layout.after)(x) if self.layout.after else x
        return x[:, self.layout.prefix :]

    def whole(self, pixel_values: Tensor) -> Tensor:
        """The stock forward, (F, 3, S, S) -> (F, N, D), patch tokens in row-major order."""
        x = self.model(pixel_values=pixel_values).last_hidden_state
        if self.layout is None:
            return x.flatten(2).transpose(1, 2)  # (F, D, h, w) -> (F, N, D)
        return x[:, self.prefix :]

    @contextmanager
    def capture(self, index: int) -> Iterator[CapturedHeads]:
        """Collect the queries and keys that block `index` computes anyway."""
        module = self._attention(index)
        heads = CapturedHeads()
        hooks = [
            module.q_proj.register_forward_hook(
                lambda _m, _a, out: setattr(heads, "queries", self._split(out))
            ),
            module.k_proj.register_forward_hook(lambda _m, _a, out: setattr(heads, "keys", self._split(out))),
        ]
        try:
            yield heads
        finally:
            for hook in hooks:
                hook.remove()

    def _split(self, out: Tensor) -> Tensor:
        heads = self.model.config.num_attention_heads
        return out.unflatten(-1, (heads, -1)).transpose(1, 2)  # (F, n, H*d) -> (F, H, n, d)

    def _attention(self, index: int) -> Any:
        assert self.layout is not None
        return getattr(self._part(self.layout.blocks)[index], self.layout.attention)

    def _part(self, path: str) -> Any:
        return self.model.get_submodule(path)


def tower(name: str, model: PreTrainedModel) -> VisionTower:
    """Wrap a transformers vision model. Raises ValueError for a family without a layout."""
    config = model.config
    kind = config.model_type
    if kind in CONVOLUTIONAL:
        side = config.image_size // (config.patch_size * 2 ** (config.num_stages - 1))
        return VisionTower(name, model, None, (side, side), config.hidden_sizes[-1])
    if kind not in LAYOUTS:
        raise ValueError(
            f"encoder {name}: model_type={kind!r}; allowed: {', '.join([*LAYOUTS, *CONVOLUTIONAL])}"
        )
    side = config.image_size // config.patch_size
    return VisionTower(name, model, LAYOUTS[kind], (side, side), config.hidden_size)
