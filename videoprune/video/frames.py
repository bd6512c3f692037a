"""Decoded frames on their way from a decoder to the caller: NumPy only, as the decoding process has no torch.

Shapes: T frames, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Frames:
    """pixels: uint8 (T, H, W, 3), RGB, upright. pts: seconds of each. errors: decoding errors on the way."""

    pixels: NDArray[np.uint8]
    pts: list[float]
    errors: int = 0


class FrameStore:
    """Room for at most `count` frames of one size, which is the first frame's where none is given."""

    def __init__(self, count: int, size: tuple[int, int] | None) -> None:
        self.size = size
        self._count = count
        self._pixels: NDArray[np.uint8] | None = None
        self._pts: list[float] = []

    def add(self, pts: float, pixels: NDArray[np.uint8]) -> None:
        """Append one frame, uint8 (H, W, 3)."""
        if self._pixels is None:
            self.size = (pixels.shape[0], pixels.shape[1])
            self._pixels = np.empty((self._count, *pixels.shape), dtype=np.uint8)  # (T, H, W, 3)
        self._pixels[len(self._pts)] = pixels
        self._pts.append(pts)

    def frames(self, *, errors: int) -> Frames:
        pixels = np.empty((0, 0, 0, 3), dtype=np.uint8) if self._pixels is None else self._pixels
        return Frames(pixels[: len(self._pts)], self._pts, errors)
