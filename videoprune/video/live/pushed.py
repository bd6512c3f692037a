"""Frames that somebody sends: a browser's camera as JPEG over a WebSocket, or a program's own pictures.

Shapes: H x W pixels.
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from videoprune.video.live.clock import STEP
from videoprune.video.live.fit import Fit
from videoprune.video.live.frame import LiveFrame
from videoprune.video.live.jpeg import JpegDecoder, JpegError
from videoprune.video.live.newest import NewestFrame
from videoprune.video.live.thinning import Thinning
from videoprune.video.orientation import Orientation
from videoprune.video.rgb import upright_rgb

if TYPE_CHECKING:
    from torch import Tensor


class PushedFrames(NewestFrame):
    """A source without a thread: each push decodes in the caller's. Several threads may push and take.

    fps: more frames a second than this are thinned before they are decoded; None: all are kept. max_side, size: as
    for `open_live`. max_bytes, max_pixels: of one JPEG; a larger one is refused before it is decoded.
    """

    def __init__(
        self,
        *,
        fps: float | None = None,
        max_side: int = 768,
        size: tuple[int, int] | None = None,
        max_bytes: int = 4 << 20,
        max_pixels: int = 1 << 24,
    ) -> None:
        for name, value in (("max_bytes", max_bytes), ("max_pixels", max_pixels)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value}; allowed: a whole number of at least 1")
        super().__init__()
        self._fit = Fit(max_side, size)
        self._thinning = Thinning(fps)
        self._jpeg = JpegDecoder(self._fit, max_bytes=max_bytes, max_pixels=max_pixels)
        self._scaler = VideoReformatter()
        self._pushing = threading.Lock()
        self._start = time.monotonic()
        self._last = -math.inf

    def push_jpeg(self, data: bytes, *, seconds: float | None = None) -> bool:
        """Offer one picture. -> False where it was thinned or comes after the end.

        seconds: of a clock of the caller's, which must ascend; None: since the source was made. Raises ValueError
        (JpegError) for a picture that is refused or broken, which is counted, and for a time that does not ascend.
        """
        with self._pushing:
            now = self._wanted(seconds)
            if now is None:
                return False
            try:
                pixels = self._jpeg.decode(data)
            except JpegError as error:
                self._count(broken=1)
                self._become(reason=str(error))
                raise
            return self._offer(pixels, now)

    def push(self, pixels: Tensor | NDArray[np.uint8], *, seconds: float | None = None) -> bool:
        """Offer one upright RGB picture, uint8 (H, W, 3), which is copied. As `push_jpeg` otherwise."""
        picture = np.asarray(pixels)
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
            raise ValueError(f"pixels: {picture.dtype} {picture.shape}; allowed: uint8 (H, W, 3)")
        with self._pushing:
            now = self._wanted(seconds)
            if now is None:
                return False
            turn, frame = (
                Orientation(),
                VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24"),
            )
            return self._offer(upright_rgb(frame, turn, self._fit.size(frame, turn), self._scaler), now)

    def end(self) -> None:
        """No more will be pushed; the frame that waits can still be taken."""
        self._become("ended")

    def _wanted(self, seconds: float | None) -> float | None:
        """The time of the frame that comes; None where it is not kept."""
        if seconds is not None and not (math.isfinite(seconds) and seconds >= 0 and seconds > self._last):
            raise ValueError(
                f"seconds={seconds}; allowed: finite, from 0 on and above the last, {self._last}"
            )
        now = max(time.monotonic() - self._start, self._last + STEP) if seconds is None else seconds
        self._last = now
        if self._thinning.wants(now):
            return now
        self._count(thinned=1)
        return None

    def _offer(self, pixels: NDArray[np.uint8], now: float) -> bool:
        import torch  # here, not above: the decoding process imports this package and must stay without torch

        self._thinning.keep(now)
        frame = LiveFrame(torch.from_numpy(np.ascontiguousarray(pixels)), now, time.time())
        return self._put(frame)
