"""Seeded prompts and layers for what rivals do inside the LLM: the same for the authors' code and for ours.

Layers are made up: they add a little of every token to itself, and their attention goes by content alone, so that the
order in which a method lays its tokens out does not matter. Shapes: S tokens, W width, H heads, n tokens now.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .inputs import Array, clip


class Prompt(NamedTuple):
    """x: float32 (S, W), `start` text tokens, `visual` ones, frame after frame, then the question."""

    x: Array
    start: int
    visual: int
    each: int

    @property
    def end(self) -> int:
        return self.start + self.visual


def prompt(
    seed: int, frames: int, each: int, width: int, *, start: int = 5, behind: int = 9, still: float = 0.7
) -> Prompt:
    """`each` tokens a frame."""
    rng = np.random.default_rng([seed, 7])
    seen = clip(seed, frames, each, width, still=still).reshape(-1, width)
    text = rng.standard_normal((start + behind, width)).astype(np.float32)
    return Prompt(np.concatenate([text[:start], seen, text[start:]]), start, frames * each, each)


def mixes(layer: int, width: int, heads: int) -> Array:
    """What makes the logits of two tokens in each head, x' mix y: float32 (H, W, W)."""
    rng = np.random.default_rng([layer, width])
    made: Array = rng.standard_normal((heads, width, width)).astype(np.float32) / width
    return made


def attention(x: Array, layer: int, rows: slice, heads: int = 3) -> Array:
    """What the tokens `rows` pay to all n tokens in a layer, (H, rows, n): a softmax that knows no order."""
    logits = np.einsum("rw,hwv,nv->hrn", x[rows], mixes(layer, x.shape[1], heads), x).astype(np.float64)
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    made: Array = (powers / powers.sum(-1, keepdims=True)).astype(np.float32)
    return made


def behind_layer(x: Array, layer: int) -> Array:
    """What a layer makes of x (n, W)."""
    rng = np.random.default_rng([layer, x.shape[1], 3])
    mix = rng.standard_normal((x.shape[1], x.shape[1])).astype(np.float32) / x.shape[1] ** 0.5
    made: Array = x + 0.05 * np.tanh(x @ mix)
    return made
