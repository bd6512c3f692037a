"""Sources that are fetched: cameras and streams of the network, cameras of this machine, files."""

from __future__ import annotations

import math
import os
import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videoprune.video.live.address import Address, parse_address
from videoprune.video.live.backoff import Backoff
from videoprune.video.live.connection import Connection
from videoprune.video.live.fit import Fit
from videoprune.video.live.frame import LiveFrame
from videoprune.video.live.newest import NewestFrame
from videoprune.video.live.opening import Wanted
from videoprune.video.live.thinning import Thinning

# Ending a killed process and its thread; a driver of the kernel that hangs can make it longer.
_JOIN_SECONDS = 5.0


def open_live(
    url: str | os.PathLike[str],
    *,
    fps: float | None = 2.0,
    max_side: int = 768,
    size: tuple[int, int] | None = None,
    paced: bool = True,
    max_pixels: int = 1 << 24,
    open_seconds: float = 10.0,
    read_seconds: float = 15.0,
    first_wait: float = 0.5,
    longest_wait: float = 30.0,
    max_retries: int | None = None,
) -> FetchedFrames:
    """A source of frames that starts at once and lives until `close`, or its end.

    url: rtsp://, rtsps://, http://, https:// (MJPEG, HLS, a video file), /dev/videoN or v4l2:/dev/... (a camera), or
    the path of a file. fps: frames a second, thinned by their times before they are made RGB; None: all. max_side:
    frames with a longer side are made smaller, aspect kept. size: (height, width) of all frames instead, as
    `Engine.frame_size`. max_pixels: of a frame as coded; larger ones count as broken. paced: recordings (files, and
    streams that know their length) run in real time; False: as fast as they are taken, and nothing is dropped.

    A connection that does not open within `open_seconds`, gives nothing for `read_seconds` or ends is tried again
    after `first_wait` seconds, then twice as long up to `longest_wait`, each less up to a half at random; after
    `max_retries` tries in a row without a frame the source has failed. Files are not tried again, recordings of
    the network go on where they broke off. Raises ValueError for impossible options and addresses, and VideoError
    (a ValueError) for a file that is not there; what shows only later, such as a file that is no video, is in
    `stats().reason`. User, password and query of a URL are in no message.
    """
    address = parse_address(url)
    for name, seconds in (("open_seconds", open_seconds), ("read_seconds", read_seconds)):
        if not (math.isfinite(seconds) and seconds > 0):
            raise ValueError(f"{name}={seconds}; allowed: finite seconds above 0")
    if not isinstance(max_pixels, int) or max_pixels < 1:
        raise ValueError(f"max_pixels={max_pixels}; allowed: a whole number of at least 1")
    if max_retries is not None and max_retries < 0:
        raise ValueError(f"max_retries={max_retries}; allowed: None or a whole number from 0 on")
    if not paced and address.kind in ("rtsp", "camera"):
        raise ValueError(f"paced=False with {address.name}, which is live; allowed: True")
    Thinning(fps)  # raises for an impossible rate
    wanted = Wanted(
        fps=fps,
        fit=Fit(max_side, size),
        max_pixels=max_pixels,
        paced=paced,
        open_seconds=open_seconds,
        read_seconds=read_seconds,
        start=time.monotonic(),
    )
    return FetchedFrames(address, wanted, Backoff(first_wait, longest_wait), max_retries)


class FetchedFrames(NewestFrame):
    """What `open_live` returns: a thread that connects, takes in frames, and connects again."""

    def __init__(
        self, address: Address, wanted: Wanted, backoff: Backoff, max_retries: int | None = None
    ) -> None:
        import torch  # noqa: F401 (it takes seconds, in which the first frames would grow old)

        super().__init__(keep_all=not wanted.paced)
        self._address, self._wanted = address, wanted
        self._backoff, self._max_retries = backoff, max_retries
        self._stop = threading.Event()
        self._starting = threading.Lock()
        self._connection: Connection | None = None
        self._thread = threading.Thread(target=self._run, name=f"live {address.name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it: a read that hangs too, whose process is killed. More than once is allowed."""
        super().close()
        self._stop.set()
        with self._starting:
            if self._connection is not None:
                self._connection.kill()
        self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        tries = 0
        try:
            while not self._stop.is_set():
                came, end = self._connect()
                if end["final"]:
                    self._become("failed" if end["end"] else "ended", end["end"] or None)
                    return
                tries = 1 if came else tries + 1
                if self._max_retries is not None and tries > self._max_retries:
                    self._become("failed", f"{end['end']}; retries: {self._max_retries}")
                    return
                self._become("retrying", end["end"])
                self._stop.wait(self._backoff.wait())
                self._count(reconnects=not self._stop.is_set())
        except Exception as error:  # no thread ends without a word
            self._become("failed", self._address.hide(f"{type(error).__name__}: {error}"))

    def _connect(self) -> tuple[bool, dict[str, Any]]:
        """One connection, to its end. -> whether a frame came, and its last message."""
        with self._starting:
            if self._stop.is_set():
                return False, {"end": "closed", "final": True}
            self._connection = Connection(self._address, self._wanted)
        first: float | None = None
        try:
            for header, pixels in self._connection.messages():
                if "end" in header:
                    return first is not None, header
                self._count(broken=header["broken"], thinned=header["thinned"])
                if pixels is not None:
                    first = first or time.monotonic()
                    self._wanted = replace(self._wanted, after=header["seconds"], origin=header["origin"])
                    self._take_in(header, pixels)
            raise AssertionError("a connection without a last message")
        finally:
            if first is not None:
                self._backoff.worked(time.monotonic() - first)
            with self._starting:
                connection, self._connection = self._connection, None
                assert connection is not None
                connection.close()

    def _take_in(self, header: dict[str, Any], pixels: NDArray[np.uint8]) -> None:
        import torch  # here, not above: the decoding process imports this package and must stay without torch

        self._put(LiveFrame(torch.from_numpy(pixels), header["seconds"], time.time() - header["late"]))
