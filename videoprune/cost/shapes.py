"""What a model computes with, and on how many tokens, as plain numbers: what costs are reckoned from.

`models.shapes` reads a `ModelShape` from a model's configuration, `token_flow` says how many tokens go where,
`operations` turns both into operations and bytes. A frame of Qwen-VL is `temporal` frames of the video.

Shapes: D width of an encoder, W width of the LLM.
"""

from __future__ import annotations

from dataclasses import dataclass

from videoprune.prune.kinds import Product

Matrix = tuple[int, int]  # inputs, outputs


@dataclass(frozen=True)
class VisionShape:
    """A vision transformer, and the matrices between it and the LLM.

    blocks: all that run; used_blocks: those that the LLM's features come through. mlp: inner width; mlp_matrices: 2,
    or 3 where it is gated. patch_inputs: numbers in a patch (3 * side * side, times frames in it). grid: patches in
    rows and columns, None where frames may have any size. prefix: tokens in front of the patches (CLS). unit_side:
    patches along a side of what becomes one token of the LLM. window_units: units along a side of an attention window
    in blocks that are not in full_blocks, 0: frames attend as a whole. taps: blocks whose output goes through a
    projector of its own too (DeepStack). projector: matrices, for each unit, on what leaves the encoder.
    projects_all: they run on places whose token has gone too. pool: stride of pooling behind the projector.
    """

    name: str
    blocks: int
    used_blocks: int
    width: int
    heads: int
    mlp: int
    mlp_matrices: int
    patch_inputs: int
    patch_size: int
    grid: tuple[int, int] | None
    temporal: int = 1
    prefix: int = 0
    unit_side: int = 1
    window_units: int = 0
    full_blocks: tuple[int, ...] = ()
    taps: tuple[int, ...] = ()
    projector: tuple[Matrix, ...] = ()
    projects_all: bool = False
    pool: int = 1

    @property
    def dense(self) -> int:
        """Patches of a frame. Raises ValueError where frames may have any size."""
        if self.grid is None:
            raise ValueError(f"grid=None of {self.name}; needed: rows and columns of patches")
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True)
class ConvShape:
    """A ConvNeXt: stages of widths and depths behind a stem of patch_size; 2 x 2 joined between stages."""

    name: str
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    patch_size: int
    image_size: int
    projector: tuple[Matrix, ...] = ()
    kernel: int = 7
    expansion: int = 4

    @property
    def grid(self) -> tuple[int, int]:
        side = self.image_size // (self.patch_size * 2 ** (len(self.widths) - 1))
        return side, side

    @property
    def dense(self) -> int:
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True)
class LanguageShape:
    """A decoder with grouped heads and a gated MLP."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    vocab: int
    mlp_matrices: int = 3


@dataclass(frozen=True)
class ModelShape:
    """A video language model. extra: visual tokens of a clip that are of no frame (a newline). fuses: it has a stage
    of its own behind the projectors, where encoders are pruned against each other; the others have one encoder.
    ranks: of encoders at METEOR's cuts, by name. head_on_all: logits are made for every place of the unpruned prompt
    (VideoLLaMA3 in transformers 5.23), not for the last alone."""

    kind: str
    encoders: tuple[VisionShape | ConvShape, ...]
    language: LanguageShape
    extra: int = 0
    fuses: bool = False
    ranks: dict[str, list[float]] | None = None
    head_on_all: bool = False


@dataclass(frozen=True)
class EncoderFlow:
    """One encoder's work for a clip, all frames together.

    patches: embedded. stretches: for each block the lengths of what attends to itself (frames or windows, prefix
    included). taps: rows of each tap's projector. projected: rows of the projector. left: tokens that leave.
    pruning: products that choosing takes.
    """

    frames: int
    patches: int
    stretches: tuple[tuple[int, ...], ...]
    taps: tuple[int, ...]
    projected: int
    left: int
    pruning: tuple[Product, ...] = ()


@dataclass(frozen=True)
class TokenFlow:
    """One prompt with one clip. dense: visual tokens without pruning. visual: those that each LLM layer computes on;
    text: all other tokens of the prompt. pruning: products that fusing and the LLM's cuts take."""

    encoders: tuple[EncoderFlow, ...]
    dense: int
    visual: tuple[int, ...]
    text: int
    pruning: tuple[Product, ...] = ()

    @property
    def layers(self) -> tuple[int, ...]:
        """Tokens, text included, that each LLM layer computes on."""
        return tuple(n + self.text for n in self.visual)
