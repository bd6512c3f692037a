"""The shortest time that a machine can take: what runs one after another is bound by its operations, or by the bytes
that must be moved for it, however few tokens there are.

Moved are at least the weights of a layer, once for all clips of a call, and the hidden states that enter and leave it.
Not counted: what stays in caches at best (queries, keys, values, the inside of the MLP), norms, biases, the places
between layers.

Shapes: D width, N tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from videoprune.cost.operations import (
    block_flops,
    convolution_flops,
    layer_weights,
    matrix_flops,
    prefill_flops,
)
from videoprune.cost.shapes import ConvShape, EncoderFlow, Matrix, ModelShape, TokenFlow, VisionShape


@dataclass(frozen=True)
class Machine:
    """flops: operations of matrix products in a second. bandwidth: bytes read in a second."""

    flops: float
    bandwidth: float

    def __post_init__(self) -> None:
        if not (self.flops > 0 and self.bandwidth > 0):
            raise ValueError(f"flops={self.flops}, bandwidth={self.bandwidth}; allowed: above 0")


@dataclass(frozen=True)
class Step:
    """One layer, of one clip. weights, moved: numbers of its matrices, and of its hidden states."""

    flops: int
    weights: int
    moved: int


def steps(shape: ModelShape, flow: TokenFlow) -> tuple[Step, ...]:
    """What the first token takes, in order; its operations are those of `Cost.without_pruning`."""
    found: list[Step] = []
    for encoder, tokens in zip(shape.encoders, flow.encoders, strict=True):
        if isinstance(encoder, ConvShape):
            found.append(_convolutions(encoder, tokens))
        else:
            found += _blocks(encoder, tokens)
        for rows in (tokens.projected, *tokens.taps):  # each tap has a projector of its own
            found += [_matrix(rows, one) for one in encoder.projector]
    language = shape.language
    for flops, count in zip(prefill_flops(language, flow.layers), flow.layers, strict=True):
        found.append(Step(flops, layer_weights(language), 2 * count * language.hidden))
    rows = flow.dense + flow.text if shape.head_on_all else 1
    return (*found, _matrix(rows, (language.hidden, language.vocab)))


def bound_seconds(clips: Mapping[tuple[Step, ...], int], machine: Machine, width: int) -> float:
    """Seconds of all clips of a call. clips: their steps, and how many clips have them. width: bytes of a number."""
    total = 0.0
    for same in zip(*clips, strict=True):  # one step of all clips
        flops = sum(step.flops * n for step, n in zip(same, clips.values(), strict=True))
        moved = sum(step.moved * n for step, n in zip(same, clips.values(), strict=True))
        total += max(flops / machine.flops, width * (same[0].weights + moved) / machine.bandwidth)
    return total


def _blocks(shape: VisionShape, flow: EncoderFlow) -> list[Step]:
    found = [_matrix(flow.patches, (shape.patch_inputs, shape.width))]
    weights = 4 * shape.width**2 + shape.mlp_matrices * shape.width * shape.mlp
    for stretches in flow.stretches:
        found.append(Step(block_flops(shape, stretches), weights, 2 * sum(stretches) * shape.width))
    return found


def _matrix(rows: int, matrix: Matrix) -> Step:
    """`rows` rows through one matrix."""
    return Step(matrix_flops([matrix], rows), matrix[0] * matrix[1], rows * sum(matrix))


def _convolutions(shape: ConvShape, flow: EncoderFlow) -> Step:
    """A ConvNeXt as one step."""
    weights, before = 0, 3 * shape.patch_size**2
    for width, depth in zip(shape.widths, shape.depths, strict=True):
        weights += before * width + depth * (shape.kernel**2 * width + 2 * shape.expansion * width**2)
        before = 4 * width
    moved = flow.frames * (3 * shape.image_size**2 + shape.dense * shape.widths[-1])
    return Step(convolution_flops(shape, flow.frames), weights, moved)
