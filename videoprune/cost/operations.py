"""Floating-point operations and bytes of the KV cache, reckoned from shapes and counts of tokens alone.

Counted: 2 for each multiply and add of matrix products, convolutions and attention (scores and values), as
`torch.utils.flop_counter.FlopCounterMode` counts them: a causal layer in full, though half of it is masked
(`causal=True` counts the half). Not counted: biases, norms, activations, softmax, rotary embeddings, pooling,
interpolation, sorting and gathering. The padding of unequal windows to the longest is not counted either. The head of
the LLM runs on the last position only, as in `generate`, unless the shape says that the model has no such choice.

FlopCounterMode has no formula for the fused attention of CPUs and leaves it out in silence: compare with
`attn_implementation="eager"`, or on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from videoprune.cost.shapes import (
    ConvShape,
    EncoderFlow,
    LanguageShape,
    Matrix,
    ModelShape,
    TokenFlow,
    VisionShape,
)
from videoprune.prune.kinds import Product


@dataclass(frozen=True)
class Cost:
    """Operations of one prompt, and bytes of its KV cache after the prefill.

    encoder: by encoder, embedding and blocks. pruning: choosing tokens in all stages; merging is no matrix product.
    projector: matrices between encoders and LLM. prefill: by layer. head: logits. decode: one
    new token after the prompt, its logits included.
    """

    encoder: tuple[int, ...]
    projector: int
    pruning: int
    prefill: tuple[int, ...]
    head: int
    decode: int
    kv_bytes: int

    @property
    def first_token(self) -> int:
        """All operations up to the first token, choosing tokens included."""
        return self.without_pruning + self.pruning

    @property
    def without_pruning(self) -> int:
        """`first_token` if choosing tokens were free."""
        return sum(self.encoder) + self.projector + sum(self.prefill) + self.head

    def as_dict(self, new_tokens: int = 1) -> dict[str, Any]:
        """Plain numbers by stage; `decode` and `total` are for `new_tokens` tokens, the prefill gives the first."""
        decode = self.decode * max(0, new_tokens - 1)
        return {
            "encoder": sum(self.encoder) + self.projector,
            "prune": self.pruning,
            "prefill": sum(self.prefill) + self.head,
            "decode": decode,
            "total": self.first_token + decode,
        }


def cost(shape: ModelShape, flow: TokenFlow, *, bytes_per_value: int = 2, causal: bool = False) -> Cost:
    """What `flow` costs on `shape`. Raises ValueError if they do not belong together."""
    if len(shape.encoders) != len(flow.encoders):
        raise ValueError(
            f"flow has {len(flow.encoders)} encoders; allowed: {len(shape.encoders)}, as the shape"
        )
    pairs = list(zip(shape.encoders, flow.encoders, strict=True))
    choosing = [*flow.pruning, *(p for one in flow.encoders for p in one.pruning)]
    return Cost(
        encoder=tuple(encoder_flops(s, f) for s, f in pairs),
        projector=sum(matrix_flops(s.projector, f.projected + sum(f.taps)) for s, f in pairs),
        pruning=sum(map(product_flops, choosing)),
        prefill=prefill_flops(shape.language, flow.layers, causal=causal),
        head=head_flops(shape.language, flow.dense + flow.text if shape.head_on_all else 1),
        decode=decode_flops(shape.language, flow.layers),
        kv_bytes=kv_bytes(shape.language, flow.layers, bytes_per_value),
    )


def flop_ideal(dense: Cost, pruned: Cost) -> float:
    """How many times faster the first token could be at best, if time were operations and choosing were free."""
    return dense.without_pruning / pruned.without_pruning


def encoder_flops(shape: VisionShape | ConvShape, flow: EncoderFlow) -> int:
    """Embedding and blocks of one encoder."""
    if isinstance(shape, ConvShape):
        return convolution_flops(shape, flow.frames)
    return vision_flops(shape, flow.patches, flow.stretches)


def vision_flops(shape: VisionShape, patches: int, stretches: Sequence[Sequence[int]]) -> int:
    """Embedding of `patches`, and all blocks. stretches: for each block the lengths of what attends to itself.

    Raises ValueError if there is not one row for each block.
    """
    if len(stretches) != shape.blocks:
        raise ValueError(f"stretches: {len(stretches)} rows; allowed: {shape.blocks}, one for each block")
    return 2 * patches * shape.patch_inputs * shape.width + sum(block_flops(shape, s) for s in stretches)


def block_flops(shape: VisionShape, stretches: Sequence[int]) -> int:
    """One block: queries, keys, values and output, attention within each of `stretches`, the MLP."""
    tokens, pairs = sum(stretches), sum(n * n for n in stretches)
    per_token = 4 * shape.width**2 + shape.mlp_matrices * shape.width * shape.mlp
    return 2 * tokens * per_token + 4 * pairs * shape.width


def convolution_flops(shape: ConvShape, frames: int) -> int:
    """A ConvNeXt on `frames` frames: stem, joins, depthwise convolutions and the two matrices of each block."""
    side = shape.image_size // shape.patch_size
    total, before = 0, 3 * shape.patch_size**2
    for width, depth in zip(shape.widths, shape.depths, strict=True):
        places = side * side
        per_place = shape.kernel**2 * width + 2 * shape.expansion * width**2
        total += 2 * places * (before * width + depth * per_place)
        side, before = side // 2, 4 * width
    return frames * total


def prefill_flops(
    shape: LanguageShape, tokens_by_layer: Sequence[int], *, causal: bool = False
) -> tuple[int, ...]:
    """Each layer on its tokens, text included. causal: count only the pairs that the mask lets through.

    Raises ValueError if there is not one count for each layer.
    """
    _check_layers(shape, tokens_by_layer)
    found = []
    for n in tokens_by_layer:
        pairs = n * (n + 1) // 2 if causal else n * n
        found.append(2 * n * layer_weights(shape) + 4 * pairs * shape.heads * shape.head_dim)
    return tuple(found)


def decode_flops(shape: LanguageShape, tokens_by_layer: Sequence[int], *, step: int = 1) -> int:
    """New token number `step` after a prompt that left `tokens_by_layer` in the cache, its logits included."""
    _check_layers(shape, tokens_by_layer)
    attention = sum(4 * (n + step) * shape.heads * shape.head_dim for n in tokens_by_layer)
    return 2 * shape.layers * layer_weights(shape) + attention + head_flops(shape)


def head_flops(shape: LanguageShape, rows: int = 1) -> int:
    """Logits of `rows` positions."""
    return 2 * rows * shape.hidden * shape.vocab


def kv_bytes(shape: LanguageShape, tokens_by_layer: Sequence[int], bytes_per_value: int = 2) -> int:
    """Keys and values of the prompt in the cache."""
    _check_layers(shape, tokens_by_layer)
    return 2 * shape.kv_heads * shape.head_dim * bytes_per_value * sum(tokens_by_layer)


def matrix_flops(matrices: Iterable[Matrix], rows: int) -> int:
    """`rows` rows through each of `matrices`."""
    return sum(2 * rows * inputs * outputs for inputs, outputs in matrices)


def product_flops(product: Product) -> int:
    b, m, k, n = product
    return 2 * b * m * k * n


def layer_weights(shape: LanguageShape) -> int:
    """Numbers in the matrices of one layer."""
    heads = 2 * shape.heads + 2 * shape.kv_heads
    return shape.hidden * (heads * shape.head_dim + shape.mlp_matrices * shape.mlp)


def _check_layers(shape: LanguageShape, tokens_by_layer: Sequence[int]) -> None:
    if len(tokens_by_layer) != shape.layers:
        raise ValueError(
            f"tokens_by_layer: {len(tokens_by_layer)} counts; allowed: {shape.layers}, one for each layer"
        )
