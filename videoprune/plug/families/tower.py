"""The encoders of a model of several: stock vision transformers that tokens may leave, and convolutional ones that
they cannot.

Shapes: F frames, P prefix tokens (CLS), N dense patch tokens, K tokens kept, D width, S pixels of a side.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from videoprune.plug.families.base import Batched, Hook, last_cut


@dataclass(frozen=True)
class Parts:
    """Where a family of vision transformers keeps its parts, and how many tokens stand in front of the patches."""

    blocks: str
    attention: str = "self_attn"
    prefix: int = 0


PARTS = {
    "siglip_vision_model": Parts("encoder.layers"),
    "clip_vision_model": Parts("encoder.layers", prefix=1),
    "dinov2": Parts("encoder.layer", "attention", prefix=1),
}
CONVOLUTIONAL = ("convnext", "convnextv2")


class Tower(Batched):
    """One encoder behind a common face. grid: rows and columns of its patch tokens for a frame; width: D.

    What leaves it pruned is shorter: nothing behind it asks for the whole grid. Raises ValueError for a family that is
    not known.
    """

    def __init__(self, name: str, model: nn.Module) -> None:
        config: Any = model.config
        kind = config.model_type
        if kind not in PARTS and kind not in CONVOLUTIONAL:
            raise ValueError(
                f"encoder {name}: model_type={kind!r}; allowed: {', '.join([*PARTS, *CONVOLUTIONAL])}"
            )
        self.name, self.model = name, model
        self.parts = PARTS.get(kind)
        self.prefix = self.parts.prefix if self.parts else 0
        joined = 1 if self.parts else 2 ** (config.num_stages - 1)
        side = config.image_size // (config.patch_size * joined)
        self.grid = (side, side)
        self.width: int = config.hidden_size if self.parts else config.hidden_sizes[-1]

    @property
    def vision(self) -> nn.Module:
        return self.model

    @property
    def dense(self) -> int:
        return self.grid[0] * self.grid[1]

    @cached_property
    def blocks(self) -> list[nn.Module]:
        """Blocks that tokens can leave between; none in a convolutional encoder."""
        return list(self.vision.get_submodule(self.parts.blocks)) if self.parts else []  # type: ignore[call-overload]

    @property
    def used_blocks(self) -> int:
        return len(self.blocks)

    def attention(self, block: nn.Module) -> nn.Module:
        assert self.parts is not None
        return getattr(block, self.parts.attention)

    def hooks(self) -> list[Hook]:
        return [(self.vision, "post", self.shorten_output)]

    def shorten_output(self, module: nn.Module, args: Any, kwargs: Any, out: Any) -> Any:
        run = self.run()
        if run is None:
            return None
        frames = len(run.dense)
        out.last_hidden_state = last_cut(out.last_hidden_state, run).unflatten(0, (frames, -1))
        return out

    def features(self, pixel_values: Tensor) -> Tensor:
        """(F, 3, S, S) normalised pixels -> (F, N, D), or (F, K, D) where the current pass prunes; row by row."""
        x = self.vision(pixel_values=pixel_values).last_hidden_state
        if self.parts is None:
            return x.flatten(2).transpose(1, 2)  # (F, D, h, w) -> (F, N, D)
        return x[:, self.prefix :]

    def features_behind(self, blocks: list[int], pixel_values: Tensor) -> list[Tensor]:
        """Patch features (F, N, D) behind some blocks, unpruned; a convolutional encoder's output for each."""
        if self.parts is None:
            return [self.features(pixel_values)] * len(blocks)
        found: dict[int, Tensor] = {}
        handles = [
            self.blocks[i].register_forward_hook(
                lambda _m, _a, out, i=i: found.__setitem__(i, out[0] if isinstance(out, tuple) else out)
            )
            for i in set(blocks)
        ]
        try:
            self.features(pixel_values)
        finally:
            for handle in handles:
                handle.remove()
        return [found[i][:, self.prefix :] for i in blocks]
