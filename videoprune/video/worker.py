"""The decoding process: reads requests from stdin, writes answers to stdout, ends when stdin does.

It is apart from the caller, so that a decoder that hangs or crashes can be ended. It imports no torch: it
starts in a fraction of a second, and decord never shares a process with torch. Messages are those of
`process`.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from typing import Any, BinaryIO

import numpy as np

from videoprune.video import decord_reader, pyav_reader
from videoprune.video.errors import VideoError
from videoprune.video.frames import Frames
from videoprune.video.process import receive, send
from videoprune.video.sample import Sampling, frame_indices
from videoprune.video.scan import Scan, scan

# The caller kills a late worker. Should the caller itself be gone, the worker ends this many seconds later.
_ORPHAN_SECONDS = 10.0


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the caller, who then ends this process
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not write into the answers
    serve(sys.stdin.buffer, answers)


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    scans: dict[str, Scan] = {}
    while (request := receive(requests)) is not None:
        faulthandler.dump_traceback_later(request["seconds"] + _ORPHAN_SECONDS, exit=True)
        header, pixels = answer(request, scans)
        send(answers, header, pixels)
        faulthandler.cancel_dump_traceback_later()


def answer(request: dict[str, Any], scans: dict[str, Scan]) -> tuple[dict[str, Any], np.ndarray | None]:
    """Decode with the one backend that is asked for.

    request: path, sampling, size, max_pixels, backend, threads. scans: the last file's packet scan, for the second
    backend. The header holds `error` and `message`, or `unfit` (ask the other backend), or what VideoFrames
    needs.
    """
    path = request["path"]
    options = request["sampling"]
    sampling = Sampling(**{**options, "timestamps": tuple(options["timestamps"])})
    size = tuple(request["size"]) if request["size"] else None
    try:
        if path not in scans:
            scans.clear()
            scans[path] = scan(path, request.get("max_pixels"))
        found = scans[path]
        indices = frame_indices(found.seconds, found.keyframes, sampling, end=found.end)
        decode = {"decord": decord_reader.decode, "pyav": pyav_reader.decode}[request["backend"]]
        frames = decode(found, indices, size, threads=request["threads"])
        if not frames.pts:
            raise VideoError(
                "corrupt", f"{path}: none of the {len(indices)} frames wanted could be decoded intact"
            )
    except decord_reader.DecordUnfitError as error:
        return {"unfit": str(error)}, None
    except VideoError as error:
        return {"error": error.reason, "message": str(error)}, None
    except Exception as error:  # what a strange file makes a library raise is that file's failure alone
        return {"error": "corrupt", "message": f"{path}: {type(error).__name__}: {error}"}, None
    scans.clear()
    return _header(found, frames, sampling, wanted=len(indices)), frames.pixels


def _header(found: Scan, frames: Frames, sampling: Sampling, *, wanted: int) -> dict[str, Any]:
    cut = found.cut or len(frames.pts) < wanted
    return {
        "pts": frames.pts,
        "duration": found.duration if sampling.until is None else min(found.duration, sampling.until),
        "kind": "truncated" if cut else "complete",
        "lost": wanted - len(frames.pts),
        "cut": found.cut,
        "errors": found.errors + frames.errors,
    }


if __name__ == "__main__":
    main()
