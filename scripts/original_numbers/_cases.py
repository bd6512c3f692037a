"""Clips that several rivals are compared on, and how their values are kept: one number a token.

Shapes: T frames, n tokens of a frame, D width, K tokens kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from . import inputs

# name: frames, tokens of a frame, width, how much stays from frame to frame, shots
CLIPS = {
    "one frame": (1, 49, 32, 0.7, 1),
    "two frames": (2, 9, 24, 0.8, 1),
    "few tokens": (8, 16, 32, 0.8, 2),
    "as few as nine": (8, 9, 24, 0.85, 3),
    "odd": (7, 35, 20, 0.75, 2),
    "prime": (13, 29, 48, 0.65, 4),
    "still": (16, 25, 32, 0.95, 2),
    "restless": (12, 36, 32, 0.3, 3),
    "pooled": (6, 169, 32, 0.75, 2),
    "long": (32, 25, 64, 0.8, 5),
    "wide": (8, 196, 40, 0.75, 4),
}
SHARES = (0.5, 0.25, 0.1)


def tensors(name: str) -> tuple[inputs.Array, inputs.Array]:
    """x (T, n, D) and attention (T, n) of a clip of `CLIPS`."""
    frames, tokens, width, still, shots = CLIPS[name]
    seed = list(CLIPS).index(name)
    return inputs.clip(seed, frames, tokens, width, still=still, shots=shots), inputs.attention(
        seed, frames, tokens
    )


def falling(shape: Sequence[int], **options: Any) -> Any:
    """What stands for the authors' noise on densities, torch.rand: float64, below 0.001, falling from token to token.

    It decides between equal densities alone, as two mutual nearest neighbours have, and as here: the earlier is denser.
    """
    return torch.linspace(1e-3, 0, shape[-1] + 1, dtype=torch.float64)[:-1].expand(tuple(shape))


def digest(values: NDArray[np.floating]) -> inputs.Array:
    """One number for each token's values (K, D): their dot product with fixed numbers between -1 and 1."""
    fixed = np.cos(np.arange(1, values.shape[1] + 1, dtype=np.float64))
    return (values.astype(np.float64) @ fixed).astype(np.float32)


def packed(found: Mapping[str, tuple[NDArray[Any], NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Places (K,) and values (K, D) by case -> a few arrays, for a small file."""
    return {
        "cases": np.array(list(found)),
        "counts": np.array([len(place) for place, _ in found.values()], np.int16),
        "places": np.concatenate([place.astype(np.int16) for place, _ in found.values()]),
        "values": np.concatenate([digest(values) for _, values in found.values()]),
    }


def unpacked(stored: Mapping[str, NDArray[Any]]) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    """Places (K,) and digests (K,) by case."""
    ends = np.cumsum(stored["counts"])[:-1]
    parts = zip(np.split(stored["places"], ends), np.split(stored["values"], ends), strict=True)
    return dict(zip(stored["cases"].tolist(), parts, strict=True))
