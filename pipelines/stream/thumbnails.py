"""Small pictures of what a stream showed, in memory alone: never on disk, never more than so many.

Shapes: H x W pixels.
"""

from __future__ import annotations

import bisect
import io
import threading

from PIL import Image
from torch import Tensor

_SIDE = 160


def jpeg(pixels: Tensor, *, side: int | None = None, quality: int = 80) -> bytes:
    """uint8 (H, W, 3) RGB as a JPEG. side: the longer side becomes that at most."""
    picture = Image.fromarray(pixels.cpu().numpy())
    if side is not None:
        picture.thumbnail((side, side))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return out.getvalue()


class Thumbnails:
    """Of one stream. Thread-safe. Where there are `most`, every other one goes: old times stay, further apart."""

    def __init__(self, most: int) -> None:
        if most < 2:
            raise ValueError(f"thumbnails={most}; allowed: 2 or more")
        self._most = most
        self._lock = threading.Lock()
        self._seconds: list[float] = []
        self._pictures: list[bytes] = []

    def add(self, seconds: float, pixels: Tensor) -> None:
        """seconds: later than all before."""
        picture = jpeg(pixels, side=_SIDE, quality=70)
        with self._lock:
            self._seconds.append(seconds)
            self._pictures.append(picture)
            if len(self._seconds) > self._most:
                self._seconds, self._pictures = self._seconds[::2], self._pictures[::2]

    def nearest(self, seconds: float) -> tuple[float, bytes] | None:
        """The second and the JPEG of what was shown then: of the last one that is not later, else of the first."""
        with self._lock:
            if not self._seconds:
                return None
            at = max(0, bisect.bisect_right(self._seconds, seconds) - 1)
            return self._seconds[at], self._pictures[at]
