"""Read frames of one video: decord where it can be trusted, PyAV where it cannot, within a deadline.

Shapes: T frames, H x W pixels.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import re
import threading
import time
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from videoprune.video.errors import VideoError
from videoprune.video.process import DecoderDiedError, DecoderProcess
from videoprune.video.sample import Sampling

if TYPE_CHECKING:
    from videoprune.types import Outcome, VideoFrames

Backend = Literal["auto", "decord", "pyav"]

_UNIFORM = Sampling()
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # two letters at least: `C:/clip.mp4` is a path
# Of the deadline: a hang in decord must leave PyAV the time to answer.
_DECORD_SHARE = 0.5


class Reader:
    """Reads videos one after the other in a decoding process of its own, which lives until `close`.

    The process starts with the first read (about half a second), stays for the next ones, and is killed and
    started anew when a video hangs or crashes it. Several threads may share a reader; they wait for each
    other. For reads in parallel, make several readers. threads: of the decoder. A context manager.
    """

    def __init__(self, *, threads: int = 2) -> None:
        if threads < 1:
            raise ValueError(f"threads={threads}; allowed: at least 1")
        self._threads = threads
        self._process = DecoderProcess()
        self._lock = threading.Lock()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the decoding process. A later read starts a new one."""
        with self._lock:
            self._process.close()

    def read(
        self,
        path: str | os.PathLike[str],
        sampling: Sampling = _UNIFORM,
        *,
        size: tuple[int, int] | None = None,
        backend: Backend = "auto",
        deadline_seconds: float = 60.0,
        max_pixels: int | None = None,
    ) -> VideoFrames:
        """As the function `read`. max_pixels: of a frame as its stream declares it; a file with more is refused."""
        _check_options(size, backend, deadline_seconds)
        _check_path(os.fspath(path))
        request = {
            "path": os.path.abspath(path),
            "sampling": dataclasses.asdict(sampling),
            "size": size,
            "max_pixels": max_pixels,
            "threads": self._threads,
        }
        with self._lock:
            return self._read(os.fspath(path), request, backend, time.monotonic() + deadline_seconds)

    def try_read(
        self, path: str | os.PathLike[str], sampling: Sampling = _UNIFORM, **options: Any
    ) -> VideoFrames | Outcome:
        """As the function `try_read`."""
        from videoprune.types import Outcome

        try:
            return self.read(path, sampling, **options)
        except VideoError as error:
            return Outcome("failed", reason=f"{error.reason}: {error}")

    def _read(self, path: str, request: dict[str, Any], backend: Backend, end: float) -> VideoFrames:
        order = ("decord", "pyav") if backend == "auto" else (backend,)
        fallback = ""
        for name in order:
            last = name == order[-1]
            seconds = (end - time.monotonic()) * (1.0 if last else _DECORD_SHARE)
            try:
                header, pixels = self._process.ask({**request, "backend": name}, seconds)
            except DecoderDiedError as death:
                fallback = f"{name} {death}"
                if last:
                    reason: Literal["deadline", "corrupt"] = "deadline" if death.late else "corrupt"
                    raise VideoError(reason, f"{path}: {fallback}") from None
                continue
            if "error" in header:
                raise VideoError(header["error"], header["message"])
            if pixels is not None:
                return _video_frames(path, name, header, pixels, fallback)
            fallback = header["unfit"]
        raise VideoError("no_decoder", f"{path}: {fallback}; allowed: backend='auto' or 'pyav'")


def read(
    path: str | os.PathLike[str],
    sampling: Sampling = _UNIFORM,
    *,
    size: tuple[int, int] | None = None,
    backend: Backend = "auto",
    deadline_seconds: float = 60.0,
) -> VideoFrames:
    """Frames of one video file, chosen by `sampling` (default: 8, uniform in time).

    pixels are uint8 (T, H, W, 3), RGB, upright: turned and mirrored as the display matrix asks. (H, W) is
    `size`, resized bilinearly frame by frame as they are decoded, or the first frame's own size. Aspect ratios,
    that of non-square pixels among them, are the caller's affair. HDR (PQ, HLG) is not tone-mapped: its code
    values become 8 bits as they are, which looks flat. Times are the stream's PTS in seconds: a stream that
    starts at 8.333 s gives 8.333 for its first frame. Of several video streams the one that FFmpeg calls best
    is read: a default one, then that of the highest bit rate.

    backend: `auto` asks decord, and PyAV where decord refuses the file, would give wrong frames, hangs (half
    the deadline) or is not installed; `fallback_reason` says why. `pyav` and `decord` ask one alone. outcome:
    `complete`; or `truncated`, if the file is cut short or wanted frames were broken: those are left out,
    never replaced by neighbours. Its `errors` counts broken packets and frames.

    Decoding runs in another process, which is killed at `deadline_seconds`. Raises VideoError (a ValueError)
    with `.reason`, for URLs among others, which are not read, and ValueError for impossible options.
    """
    return _shared_reader(os.getpid()).read(
        path, sampling, size=size, backend=backend, deadline_seconds=deadline_seconds
    )


def try_read(
    path: str | os.PathLike[str], sampling: Sampling = _UNIFORM, **options: Any
) -> VideoFrames | Outcome:
    """As `read`, but a video without a frame gives a failed Outcome with the reason `kind: sentence`."""
    return _shared_reader(os.getpid()).try_read(path, sampling, **options)


@functools.cache
def _shared_reader(pid: int) -> Reader:
    """One per process: a forked child must not talk into its parent's pipe."""
    return Reader()


def _check_options(size: tuple[int, int] | None, backend: str, deadline_seconds: float) -> None:
    if size is not None and not (len(size) == 2 and all(isinstance(n, int) and n >= 1 for n in size)):
        raise ValueError(f"size={size}; allowed: None or (height, width), whole numbers of at least 1")
    if backend not in get_args(Backend):
        raise ValueError(f"backend={backend!r}; allowed: {', '.join(get_args(Backend))}")
    if not (math.isfinite(deadline_seconds) and deadline_seconds > 0):
        raise ValueError(f"deadline_seconds={deadline_seconds}; allowed: a finite number above 0")


def is_url(path: str) -> bool:
    """A path that looks like a URL and is no file is taken for one; pathlib turns its `//` into `/`."""
    return _URL.match(path) is not None and not os.path.exists(path)


def _check_path(path: str) -> None:
    if is_url(path):
        raise VideoError(
            "url", f"path={path!r}: URLs are not read; allowed: the path of a file on this machine"
        )


def _video_frames(
    path: str, backend: str, header: dict[str, Any], pixels: NDArray[np.uint8], fallback: str
) -> VideoFrames:
    import torch  # here, not above: the decoding process imports this package and must stay without torch

    from videoprune.types import Outcome, VideoFrames

    if header["kind"] == "complete":
        outcome = Outcome("complete", errors=header["errors"])
    else:
        lost = f"{header['lost']} frames could not be decoded" if header["lost"] else ""
        cut = "the file ends before the stream does" if header["cut"] else ""
        outcome = Outcome(
            "truncated", "; ".join(filter(None, (cut, lost))), header["pts"][-1], header["errors"]
        )
    return VideoFrames(
        pixels=torch.from_numpy(pixels),
        pts_seconds=tuple(header["pts"]),
        duration_seconds=header["duration"],
        path=path,
        backend=backend,
        outcome=outcome,
        fallback_reason=fallback,
    )
