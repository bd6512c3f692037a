"""One remote file into a local one, within a time: what may pass is tried again, what will not is told at once.

A request can hang in ways that no library's time-outs see. So it runs in a thread that is left behind when it is late:
it ends with the next byte that it gets, and what it wrote is nobody's file any more.
"""

from __future__ import annotations

import errno
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fsspec.callbacks import Callback

from videoprune.video.errors import VideoError, VideoReason
from videoprune.video.remote.address import Stored, file_system, shown, stored
from videoprune.video.remote.options import RemoteOptions

_LOOK_SECONDS = 0.25
# Of the client's errors by HTTP, those that the same request may not meet again. 400: S3's RequestTimeout, and what
# aiohttp makes of an answer that broke off.
_PASSING = (400, 408, 425, 429)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _LateError(TimeoutError):
    """Nothing came for too long."""


class _LeftBehindError(Exception):
    """Nobody waits for this request any more."""


class Watch(Callback):
    """Told by fsspec how far a request is. most: bytes; more are not fetched."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.last = most, time.monotonic()
        self.left_behind = False

    def set_size(self, size: int | None) -> None:
        self._heard()
        self.size = size
        self._check(size or 0)

    def absolute_update(self, value: int) -> None:
        self._heard()
        self.value = value
        self._check(value)

    def relative_update(self, inc: int = 1) -> None:
        self.absolute_update(self.value + inc)

    def _heard(self) -> None:
        if self.left_behind:
            raise _LeftBehindError
        self.last = time.monotonic()

    def _check(self, size: int) -> None:
        if size > self.most:
            raise VideoError("too_large", f"{size:,} bytes or more; allowed: {self.most:,}")


def facts(address: str, options: RemoteOptions, end: float) -> Stored:
    """What the store says of a file; nothing where it does not answer well: fetching will tell why.

    end: on the monotonic clock."""
    fs, path = file_system(address)
    try:
        return stored(_watched(lambda: fs.info(path), Watch(0), options, end))
    except Exception:
        return Stored()


def fetch(address: str, path: Path, known: Stored, options: RemoteOptions, end: float) -> Path:
    """The whole file, beside `path` under a name of its own. Raises VideoError, with the address and why.

    end: see `facts`."""
    pause = options.pause
    for number in range(1, options.tries + 1):
        # A name of its own: a request that was left behind may still write into the one before.
        part = path.with_name(f"{path.stem}.{uuid.uuid4().hex[:8]}.part")
        try:
            _fetch_once(address, part, known, options, end)
            return part
        except Exception as error:
            _discard(part)
            reason, last = permanent(error), number == options.tries or time.monotonic() + pause >= end
            if reason or last:
                tries = "" if number == 1 else f" ({number} tries)"
                said = (str(error) or type(error).__name__).replace(address, shown(address))
                raise VideoError(reason or "unreachable", f"{shown(address)}: {said}{tries}") from error
        time.sleep(pause * random.uniform(0.5, 1.0))  # decoders that failed together do not come back so
        pause *= 2
    raise AssertionError("the last try returns or raises")


def permanent(error: BaseException) -> VideoReason | None:
    """Why another try would end in the same way; None if it might not."""
    if isinstance(error, VideoError):
        return None if error.reason == "unreachable" else error.reason
    for one in _causes(error):
        status = _status(one)
        if isinstance(one, FileNotFoundError | IsADirectoryError) or status in (404, 410):
            return "missing"
        if isinstance(one, PermissionError) or status in (401, 403) or "Credentials" in type(one).__name__:
            return "forbidden"
        if isinstance(one, OSError) and one.errno in _FULL:
            return "no_room"
        if (status and 400 <= status < 500 and status not in _PASSING) or isinstance(
            one, ValueError | ImportError | NotImplementedError
        ):
            return "refused"
    return None


def _fetch_once(address: str, part: Path, known: Stored, options: RemoteOptions, end: float) -> None:
    fs, path = file_system(address)
    most = options.largest
    if known.size is not None and known.size > most:
        raise VideoError("too_large", f"{known.size:,} bytes; allowed: {most:,}")
    watch = Watch(most)
    _watched(lambda: fs.get_file(path, str(part), callback=watch), watch, options, end)
    if not part.is_file():
        raise VideoError("missing", "a folder, not a file")
    size = part.stat().st_size
    watch._check(size)
    if watch.size is not None and size < watch.size:
        raise VideoError("unreachable", f"{size:,} bytes came, {watch.size:,} were promised")
    if known.size is not None and size != known.size:
        raise VideoError("changed", f"{size:,} bytes, {known.size:,} when it was listed")


def _discard(part: Path) -> None:
    if part.is_dir():  # what fsspec makes of a remote folder
        part.rmdir()
    part.unlink(missing_ok=True)


def _watched(ask: Callable[[], Any], watch: Watch, options: RemoteOptions, end: float) -> Any:
    """What `ask` returns, or raises; _LateError if it hangs."""
    told: list[Any] = []
    failed: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            told.append(ask())
        except BaseException as error:
            failed.append(error)
        done.set()

    threading.Thread(target=run, name="fetch", daemon=True).start()
    while not done.wait(_LOOK_SECONDS):
        now = time.monotonic()
        if now >= end or now - watch.last >= options.silent_seconds:
            watch.left_behind = True
            late = f"no byte for {options.silent_seconds:g} s"
            raise _LateError(f"not there within {options.seconds:g} s" if now >= end else late)
    if failed:
        raise failed[0]
    return told[0]


def _causes(error: BaseException) -> Iterator[BaseException]:
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__


def _status(error: BaseException) -> int | None:
    """Of HTTP, wherever a library keeps it: aiohttp, gcsfs, requests, botocore."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        found = getattr(error, "status", None) or getattr(error, "code", None)
        found = found or getattr(response, "status_code", None)
    return int(found) if str(found).isdecimal() else None
