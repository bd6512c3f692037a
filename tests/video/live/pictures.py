"""JPEG pictures that tests make themselves."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from numpy.typing import NDArray


def as_jpeg(picture: NDArray[np.uint8]) -> bytes:
    """A baseline JPEG of a picture (H, W, 3), written by FFmpeg."""
    codec = av.CodecContext.create("mjpeg", "w")
    assert isinstance(codec, VideoCodecContext)
    codec.height, codec.width = picture.shape[:2]
    codec.pix_fmt, codec.time_base = "yuvj420p", Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuvj420p")
    return b"".join(bytes(packet) for packet in codec.encode(frame) + codec.encode(None))


def grey(value: int, height: int = 48, width: int = 80) -> NDArray[np.uint8]:
    return np.full((height, width, 3), value, dtype=np.uint8)
