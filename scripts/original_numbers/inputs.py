"""Seeded inputs, the same for the authors' code and for ours: numpy's generator, so they do not depend on torch.

Shapes: T frames, n tokens of a frame, D width, d key width.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def clip(seed: int, frames: int, tokens: int, width: int, *, still: float = 0.7, shots: int = 2) -> Array:
    """Tokens of a clip, float32 (T, n, D): shots whose frames look alike, tokens that look like their neighbours.

    still: share of a token that stays from frame to frame within a shot.
    """
    rng = np.random.default_rng([seed, frames, tokens, width])
    found = np.empty((frames, tokens, width), np.float32)
    common = rng.standard_normal(width)
    for part in np.array_split(np.arange(frames), shots):
        base = rng.standard_normal((tokens, width)) + 0.5 * common
        base[1:] += 0.6 * base[:-1]
        for t in part:
            found[t] = still * base + (1 - still) * rng.standard_normal((tokens, width))
    return found


def attention(seed: int, frames: int, tokens: int) -> Array:
    """Importance of each token, float32 (T, n), 1 on the average, without ties."""
    rng = np.random.default_rng([seed, frames, tokens, 1])
    drawn = rng.exponential(size=(frames, tokens)).astype(np.float32)
    return drawn / drawn.mean(1, keepdims=True)


def keys(seed: int, frames: int, tokens: int, width: int) -> Array:
    """Head-mean keys, float32 (T, n, d)."""
    return clip(seed + 10_000, frames, tokens, width, still=0.5)


def groups(share: NDArray[np.float32]) -> tuple[NDArray[np.int16], Array]:
    """What each token has become, of share (T, k, n), how much of it there is in each of the k results.

    -> the first token of its group, int16 (T, n), -1 for one that is in none; and what it counts there, (T, n).
    """
    first = (share > 0).argmax(2).astype(np.int16)  # (T, k)
    group = np.take_along_axis(first, share.argmax(1), 1)
    weight = share.max(1)
    return np.where(weight > 0, group, -1).astype(np.int16), weight.astype(np.float32)
