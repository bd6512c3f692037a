"""Decode chosen frames with decord: the first backend, where it can be trusted.

decord 0.6 finds a frame by counting the pictures that come out of its decoder from a keyframe on, never by
their times, and it repeats a neighbour where none comes out. Both are silent. So the packet scan decides
beforehand whether counting is safe, the times that decord reports must be the scan's, repeats are forbidden,
and a read during which its FFmpeg wrote an error to stderr does not count.

Shapes: T wanted frames, H x W pixels.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from videoprune.video.frames import Frames, FrameStore
from videoprune.video.scan import Scan

# Seeking elsewhere (AVI, MPEG-TS and -PS, ASF) was seen to give wrong frames.
_SAFE_FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "flv")
_CHUNK_BYTES = 64 << 20
# Frames of a stream. decord's process takes some 120 MiB and 4 KB for each: 475 MiB for an hour at 25 a second, where
# PyAV's takes 73 and half the time.
_LONGEST = 60_000
# The share of frames that may be repeated. 0 would switch the check off.
_FAULT_TOLERANCE = "0.000001"


class DecordUnfitError(Exception):
    """decord cannot be trusted with this file; the message says why."""


def why_unfit(scan: Scan) -> str:
    """Why decord would give wrong frames for this stream; empty if nothing speaks against it."""
    if scan.format not in _SAFE_FORMATS:
        return f"decord seeks wrongly in {scan.format!r} files"
    if len(scan.pts) > _LONGEST:
        return f"decord takes too much memory for {len(scan.pts):,} frames"
    if scan.errors or scan.cut:
        return "the file is cut or has broken packets, which decord hides"
    if scan.hidden:
        return f"decord miscounts: {scan.hidden} packets give no frame"
    if scan.reordered:
        return f"decord miscounts: {scan.reordered} keyframes are stored out of order (open GOP)"
    if scan.orientation is None:
        return "the first frame does not decode, so its orientation is unknown"
    if scan.orientation.mirrored:
        return "the display matrix mirrors, and decord turns pictures but never mirrors them"
    if scan.orientation.in_stream or not scan.orientation.exact:
        return "decord overlooks a display matrix outside the file's header, or with a slant"
    return ""


def decode(scan: Scan, indices: list[int], size: tuple[int, int] | None, *, threads: int) -> Frames:
    """The frames at `indices` of `scan`, upright, RGB, resized to `size` (height, width) as they are decoded.

    Raises DecordUnfitError where decord is absent, refuses the file, or may give wrong frames.
    """
    if why := why_unfit(scan):
        raise DecordUnfitError(why)
    try:
        import decord  # here, not above: it has no wheel for some platforms
    except (ImportError, OSError, RuntimeError) as error:
        raise DecordUnfitError(f"decord is not installed ({_first_line(error)})") from error
    with tempfile.TemporaryFile() as log:
        try:
            with _stderr_into(log.fileno()):
                frames = _decode(decord, scan, indices, size, threads)
        except DecordUnfitError:
            raise
        except Exception as error:  # decord raises RuntimeError, DECORDError, AssertionError and more
            raise DecordUnfitError(f"decord refused the file: {_first_line(error)}") from error
        log.seek(0)
        if complaint := log.readline().decode(errors="replace").strip():
            raise DecordUnfitError(
                f"decord hides decoding errors: {re.sub(r' @ 0x[0-9a-f]+', '', complaint)}"
            )
    return frames


def _decode(
    decord: Any, scan: Scan, indices: list[int], size: tuple[int, int] | None, threads: int
) -> Frames:
    height, width = size or (-1, -1)
    reader = decord.VideoReader(
        scan.path, width=width, height=height, num_threads=threads, fault_tol=_FAULT_TOLERANCE
    )
    _check_times(reader, scan)
    store = FrameStore(len(indices), size)
    frame_bytes = 3 * (height * width if size else scan.height * scan.width)
    chunk = max(1, _CHUNK_BYTES // frame_bytes)
    for start in range(0, len(indices), chunk):
        part = indices[start : start + chunk]
        for index, pixels in zip(part, reader.get_batch(part).asnumpy(), strict=True):
            store.add(float(scan.seconds[index]), pixels)
    return store.frames(errors=0)


def _check_times(reader: Any, scan: Scan) -> None:
    """decord must list as many frames as the scan, at the same times. It counts from 0, in float32."""
    if len(reader) != len(scan.pts):
        raise DecordUnfitError(f"decord counts {len(reader)} frames, the packets hold {len(scan.pts)}")
    times = reader.get_frame_timestamp(np.arange(len(reader)))[:, 0].astype(np.float64)  # (F,)
    gap = np.abs((times - times[0]) - (scan.seconds - scan.seconds[0]))
    if gap.max() > 1e-3 + 1e-6 * scan.duration:
        raise DecordUnfitError(f"decord's times differ from the packets' by up to {gap.max():.3f} s")


def _first_line(error: Exception) -> str:
    """The message without the source position that decord puts before it."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"^(\[[\d:]+\] \S+:\d+: )+", "", line)


@contextmanager
def _stderr_into(file: int) -> Iterator[None]:
    """Send what libraries write to stderr into `file`: for the whole process, which decodes in one thread."""
    before = os.dup(2)
    os.dup2(file, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
