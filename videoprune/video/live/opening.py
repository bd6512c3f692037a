"""Opening a live source, and what went wrong where that fails.

Without torch, as all that the decoding process runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream

from videoprune.video.errors import VideoError
from videoprune.video.live.address import ALLOWED, PLAYLISTS, Address
from videoprune.video.live.fit import Fit
from videoprune.video.scan import best_stream

# What watches over a call that may hang, given the seconds it may take.
Guard = Callable[[float], AbstractContextManager[None]]


@dataclass(frozen=True)
class Wanted:
    """What a source asks of its connections.

    fps, fit: of frames. max_pixels: of a frame as coded. paced: recordings run in real time. open_seconds,
    read_seconds: longest waits. start: of the source, on the monotonic clock, which processes of a machine share.
    after, origin: of the connection before, if any: seconds of its last frame, and the PTS that was second 0.
    """

    fps: float | None
    fit: Fit
    max_pixels: int
    paced: bool
    open_seconds: float
    read_seconds: float
    start: float
    after: float | None = None
    origin: float | None = None


class PlayError(Exception):
    """The connection is over; the message says why. final: another one would not help."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


def ffmpeg_pixels(most: int) -> int:
    """The limit to give FFmpeg, which pads each of at most 65,536 rows to 64 pixels before it compares."""
    return most + (63 << 16)


def open_stream(address: Address, wanted: Wanted, guard: Guard) -> tuple[InputContainer, VideoStream]:
    """The container, which the caller closes, and its video stream. Raises PlayError."""
    container = _open(address, wanted, guard)
    try:
        if address.kind == "file" and container.format.name.split(",")[0] in PLAYLISTS:
            raise PlayError(f"{address.name}: a list of other files; allowed: {ALLOWED}", final=True)
        try:
            return container, best_stream(address.name, container)
        except VideoError as error:
            raise PlayError(f"{error}; allowed: {ALLOWED}", final=address.kind == "file") from None
    except BaseException:
        container.close()
        raise


def _open(address: Address, wanted: Wanted, guard: Guard) -> InputContainer:
    began, limit = time.monotonic(), wanted.open_seconds
    options = {"max_pixels": str(ffmpeg_pixels(wanted.max_pixels))}  # for FFmpeg's first look at the pictures
    if (
        address.kind == "rtsp"
    ):  # PyAV 15 crashes at such options where the streams show late; memory is limited too
        options = {}
    try:
        with guard(limit):
            return av.open(
                address.target,
                format=address.format or None,
                options=options,
                container_options=address.options,
                timeout=(limit, wanted.read_seconds),
                metadata_errors="replace",
            )
    except (FFmpegError, OSError, ValueError) as error:
        if time.monotonic() - began > limit:
            raise PlayError(f"{address.name}: no answer within {limit:g} s") from None
        # The message itself would name the URL.
        why = getattr(error, "strerror", None) or type(error).__name__
        if address.kind != "file":
            raise PlayError(f"{address.name}: {why}") from None
        why = f"not a video that FFmpeg knows ({why}); allowed: {ALLOWED}"
        raise PlayError(f"{address.name}: {why}", final=True) from None
