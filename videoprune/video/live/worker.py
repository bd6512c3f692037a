"""The decoding process of one connection: a request on stdin, frames on stdout, gone when either closes.

It is apart from the server, so that what hangs in a name look-up or a camera's driver, where FFmpeg's own timeouts do
not reach, can be ended at once, and so that a broken stream can crash nothing else. The request comes on stdin and
not as an argument, which every user of the machine could read: it may hold a password. Messages are those of
`process`.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from videoprune.video.live.address import Address
from videoprune.video.live.fit import Fit
from videoprune.video.live.opening import PlayError, Wanted
from videoprune.video.live.playing import Played, Playing
from videoprune.video.process import receive, send

# After FFmpeg's own timeout, which gives a better reason.
_GRACE_SECONDS = 2.0
# Of address space, far above what frames of 16 million pixels need: a stream must not fill the machine.
_MOST_BYTES = 4 << 30


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the caller, who then ends this process
    _limit_memory()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not write into the answers
    request = receive(sys.stdin.buffer)
    if request is None:
        return
    threading.Thread(target=_end_with_caller, daemon=True).start()
    serve(request, answers)


def serve(request: dict[str, Any], answers: BinaryIO) -> None:
    address = Address(**request["address"])
    wanted = Wanted(**{**request["wanted"], "fit": _fit(**request["wanted"]["fit"])})
    try:
        for played in Playing(address, wanted, guard).frames():
            send(answers, _header(played), played.pixels)
        end: dict[str, Any] = {"end": "", "final": True}
    except PlayError as error:
        end = {"end": address.hide(str(error)), "final": error.final}
    except BrokenPipeError:
        return  # the caller is gone
    except Exception as error:
        # What a strange stream makes a library raise is that connection's failure alone.
        end = {"end": address.hide(f"{address.name}: {type(error).__name__}: {error}"), "final": False}
    send(answers, end)


@contextmanager
def guard(seconds: float) -> Iterator[None]:
    """End this process where what runs within takes longer and FFmpeg does not notice."""
    faulthandler.dump_traceback_later(seconds + _GRACE_SECONDS, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _header(played: Played) -> dict[str, Any]:
    names = [f.name for f in dataclasses.fields(played) if f.name != "pixels"]
    return {name: getattr(played, name) for name in names}


def _fit(max_side: int, exact: list[int] | None) -> Fit:
    return Fit(max_side, (exact[0], exact[1]) if exact else None)


def _end_with_caller() -> None:
    while os.read(0, 64):  # not sys.stdin, whose lock this thread would still hold at a normal exit
        pass
    os._exit(0)


def _limit_memory() -> None:
    try:
        import resource  # not on all platforms

        _, most = resource.getrlimit(resource.RLIMIT_AS)
        limit = _MOST_BYTES if most == resource.RLIM_INFINITY else min(_MOST_BYTES, most)
        resource.setrlimit(resource.RLIMIT_AS, (limit, most))
    except (ImportError, OSError, ValueError):
        return


if __name__ == "__main__":
    main()
