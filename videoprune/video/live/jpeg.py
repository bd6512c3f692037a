"""JPEG pictures from strangers: looked through before anything is decoded, then decoded by FFmpeg.

Shapes: H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import av
import numpy as np
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from videoprune.video.live.exif import exif_orientation
from videoprune.video.live.fit import Fit
from videoprune.video.orientation import Orientation
from videoprune.video.rgb import upright_rgb

_FRAMES = {0xC0: "baseline", 0xC1: "extended", 0xC2: "progressive"}  # Huffman-coded, which cameras write
_OTHER_FRAMES = {*range(0xC3, 0xD0)} - {0xC4, 0xC8, 0xCC}  # lossless, hierarchical, arithmetic
_ALONE = {0x01, *range(0xD0, 0xD8)}  # markers without a length: TEM, restarts
_START, _END, _SCAN, _APP1 = 0xD8, 0xD9, 0xDA, 0xE1
# Encoders write 1 scan, or 10 or so of a progressive picture. Each costs a pass over the whole picture.
_MOST_SCANS = 32


class JpegError(ValueError):
    """A JPEG that is refused; the message says why and what is allowed."""


@dataclass(frozen=True)
class JpegHeader:
    """height, width: as coded. turn: what the EXIF tag asks for. plain: the picture without its EXIF segments.

    The tag is read here and its segment kept from FFmpeg, since FFmpeg 8 hands it on in a form that PyAV 18 fails at.
    """

    height: int
    width: int
    turn: Orientation
    plain: bytes = field(repr=False)


def read_header(data: bytes, *, max_bytes: int, max_pixels: int) -> JpegHeader:
    """From the headers alone: no pixel is allocated. Raises JpegError for what is not to be decoded.

    The whole chain of segments is walked (ITU-T T.81, B.1), since a second header could say another size than the
    first, and since a picture that ends early would be half grey.
    """
    if not data.startswith(b"\xff\xd8"):
        raise JpegError(f"picture: {len(data)} bytes without a JPEG's first two; allowed: JPEG")
    if len(data) > max_bytes:
        raise JpegError(f"picture: {len(data)} bytes; allowed: up to {max_bytes}")
    size: tuple[int, int] | None = None
    turn, plain = Orientation(), bytearray(data[:2])
    place, scans = 2, 0
    while True:
        start = place
        marker, place = _marker(data, place)
        if marker == _END:
            break
        if marker in _ALONE:
            continue
        end = place + int.from_bytes(data[place : place + 2], "big")
        if end < place + 2 or end > len(data) or marker == _START:
            raise JpegError("picture: a segment that is cut or out of place; allowed: a whole JPEG")
        if marker in _FRAMES or marker in _OTHER_FRAMES:
            if size is not None or marker in _OTHER_FRAMES:
                raise JpegError(
                    "picture: lossless, arithmetic or of two headers; allowed: one Huffman-coded picture"
                )
            size = _frame_header(data[place + 2 : end], max_pixels)
        if marker == _APP1:
            turn = exif_orientation(data[place + 2 : end]) or turn
            place = end
            continue
        place = end
        if marker == _SCAN:
            scans += 1
            if size is None or scans > _MOST_SCANS:
                raise JpegError(
                    f"picture: scans without a header, or over {_MOST_SCANS}; allowed: up to that"
                )
            place = _after_scan(data, place)
        plain += data[start:place]
    if size is None or not scans:
        raise JpegError("picture: a JPEG without a picture in it; allowed: a whole JPEG")
    return JpegHeader(*size, turn, bytes(plain + b"\xff\xd9"))


def _marker(data: bytes, place: int) -> tuple[int, int]:
    """The marker at `place` and where it ends; any number of 0xFF may come before it."""
    start = place
    while place < len(data) and data[place] == 0xFF:
        place += 1
    if place == start or place == len(data) or data[place] == 0:
        raise JpegError("picture: cut before its end, or no marker where one must be; allowed: a whole JPEG")
    return data[place], place + 1


def _after_scan(data: bytes, place: int) -> int:
    """Where the next marker begins: in coded data 0xFF is followed by 0, or by the number of a restart."""
    while True:
        place = data.find(b"\xff", place)
        if place < 0 or place + 1 == len(data):
            raise JpegError("picture: cut before its end; allowed: a whole JPEG")
        if data[place + 1] and data[place + 1] not in _ALONE:
            return place
        place += 2


def _frame_header(header: bytes, max_pixels: int) -> tuple[int, int]:
    if len(header) < 6 or header[0] != 8 or header[5] not in (1, 3):
        raise JpegError(
            "picture: not of 8 bits, or not grey or of three colours; allowed: 8-bit grey or colour"
        )
    height, width = int.from_bytes(header[1:3], "big"), int.from_bytes(header[3:5], "big")
    if not 0 < height * width <= max_pixels:
        raise JpegError(f"picture: {height} x {width} pixels; allowed: 1 to {max_pixels} in all")
    return height, width


class JpegDecoder:
    """Decodes one picture at a time. For one thread at a time."""

    def __init__(self, fit: Fit, *, max_bytes: int, max_pixels: int) -> None:
        self._fit, self._max_bytes, self._max_pixels = fit, max_bytes, max_pixels
        self._scaler = VideoReformatter()

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        """uint8 (H, W, 3), RGB, upright by its EXIF tag, fitted. Raises JpegError."""
        header = read_header(data, max_bytes=self._max_bytes, max_pixels=self._max_pixels)
        # A new one each time: nothing of a broken picture stays.
        codec = VideoCodecContext.create("mjpeg", "r")
        assert isinstance(codec, VideoCodecContext)
        codec.thread_count = 1
        # FFmpeg pads rows to 64 pixels before it compares. Without `explode` it paints what is missing grey.
        room = header.height * -(-header.width // 64) * 64
        codec.options = {"max_pixels": str(room), "err_detect": "explode"}
        try:
            frames = codec.decode(av.Packet(header.plain)) + codec.decode(None)
        except FFmpegError as error:
            raise JpegError(f"picture: broken ({error.strerror}); allowed: a whole JPEG") from None
        if len(frames) != 1 or frames[0].is_corrupt:
            raise JpegError("picture: broken; allowed: a whole JPEG")
        return upright_rgb(frames[0], header.turn, self._fit.size(frames[0], header.turn), self._scaler)
