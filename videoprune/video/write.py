"""Write pictures as an MP4 file."""

from __future__ import annotations

import os
from collections.abc import Iterable

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

_ENCODERS = ("libx264", "libopenh264", "mpeg4")


def write_mp4(
    pictures: Iterable[NDArray[np.uint8]], path: str | os.PathLike[str], *, rate: int, repeat: int = 1
) -> str:
    """Write uint8 (H, W, 3) pictures of one even size, `rate` of them a second. -> the encoder's name.

    H.264 where FFmpeg can write it, else MPEG-4. repeat: times that each picture is written, at `rate * repeat`
    frames a second: few players like less than ten. Raises ValueError for odd sizes, for none, and for a path that
    cannot be written.
    """
    encoder = next((name for name in _ENCODERS if name in av.codecs_available), None)
    if encoder is None:
        raise ValueError(f"no video encoder; needed: FFmpeg with one of {', '.join(_ENCODERS)}")
    if rate < 1 or repeat < 1:
        raise ValueError(f"rate={rate}, repeat={repeat}; allowed: whole numbers from 1 on")
    stream: VideoStream | None = None
    first: tuple[int, ...] = ()
    try:
        with av.open(os.fspath(path), "w", format="mp4") as container:
            for picture in pictures:
                if stream is None:
                    first = picture.shape
                    stream = _stream(container, encoder, first, rate * repeat)
                if picture.shape != first:
                    raise ValueError(f"pictures: shapes {first} and {picture.shape}; allowed: one shape")
                for _ in range(repeat):
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            if stream is None:
                raise ValueError("pictures: none; allowed: at least one")
            container.mux(stream.encode(None))
    except av.error.FFmpegError as error:
        raise ValueError(f"path={os.fspath(path)!r}: {error}") from error
    return encoder


def _stream(
    container: av.container.OutputContainer, encoder: str, shape: tuple[int, ...], rate: int
) -> VideoStream:
    if len(shape) != 3 or shape[2] != 3 or shape[0] % 2 or shape[1] % 2:
        raise ValueError(f"pictures: shape {shape}; allowed: (H, W, 3) with even H and W")
    stream = container.add_stream(encoder, rate=rate)
    assert isinstance(stream, VideoStream)
    stream.height, stream.width = shape[:2]
    stream.pix_fmt = "yuv420p"
    if encoder == "libx264":
        stream.options = {"crf": "18", "preset": "veryfast"}
    else:
        stream.bit_rate = 4_000_000
    return stream
