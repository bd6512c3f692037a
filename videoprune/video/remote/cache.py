"""Fetched videos in a folder of bounded size, which all processes of a machine share.

A file has its name when it is whole, in one step. Who reads one holds a shared lock on it, who fetches one an exclusive
lock on <key>.fetch, which says how many bytes that may take, and who makes room one on the folder. The system lets go
of locks with the process, however it ends. What was used longest ago goes first, nothing that is in use.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from videoprune.video.errors import VideoError
from videoprune.video.remote.address import Stored, shown
from videoprune.video.remote.fetch import facts, fetch
from videoprune.video.remote.options import RemoteOptions

_PART, _FETCH = ".part", ".fetch"
_NAME = re.compile(r"([0-9a-f]{32})(\.[0-9a-f]{8}\.part|\.fetch|\.[a-z0-9]{1,4})?")  # others are left alone
_POLL_SECONDS = 0.1


class VideoCache:
    """Raises ValueError where `options.folder` cannot be written."""

    def __init__(self, options: RemoteOptions) -> None:
        self.options, self.folder = options, Path(options.folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._folder_locked():
                pass
        except OSError as error:
            raise ValueError(f"folder={options.folder!r}: {error}; allowed: a folder to write in") from error

    @contextmanager
    def file(self, address: str, known: Stored | None = None) -> Iterator[str]:
        """Path of the video on this machine, which stays there while the block runs. known: what a listing said of it.

        Raises VideoError where it cannot be had."""
        end = time.monotonic() + self.options.seconds
        known = known if known and known.tag else facts(address, self.options, end)
        path = self.folder / _name(address, known)
        held = _held(path)
        if held is None:
            held = self._fetched(address, known, path, end)
        try:
            os.utime(path)
            yield str(path)
        finally:
            os.close(held)

    def _fetched(self, address: str, known: Stored, path: Path, end: float) -> int:
        """The locked file, fetched here or by another process that was first."""
        with self._fetching(path, address, end) as lock:
            held = _held(path)
            if held is not None:
                return held
            self._make_room(known.size or self.options.largest, lock, address, end)
            part = fetch(address, path, known, self.options, end)
            with self._folder_locked():
                os.replace(part, path)
                held = _held(path)
            assert held is not None, path
            return held

    @contextmanager
    def _fetching(self, path: Path, address: str, end: float) -> Iterator[int]:
        """The lock of who fetches a file. What a process that was killed left behind is gone then."""
        own = path.with_suffix(_FETCH)
        while (lock := _locked(own, os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX)) is None:
            if time.monotonic() >= end:
                raise VideoError(
                    "unreachable",
                    f"{shown(address)}: another process did not have it within {self.options.seconds:g} s",
                )
            time.sleep(_POLL_SECONDS)
        try:
            os.ftruncate(lock, 0)
            for part in self.folder.glob(f"{path.stem}.*{_PART}"):
                part.unlink(missing_ok=True)
            yield lock
        finally:
            own.unlink(missing_ok=True)
            os.close(lock)

    def _make_room(self, size: int, lock: int, address: str, end: float) -> None:
        """Wait until `size` bytes more fit, and set them aside in `lock`."""
        while True:
            with self._folder_locked():
                if self._room_for(min(size, self.options.largest)):
                    os.pwrite(lock, str(min(size, self.options.largest)).encode(), 0)
                    return
            if time.monotonic() >= end:
                raise VideoError(
                    "no_room",
                    f"{shown(address)}: all of the {self.options.size:,} bytes of {self.folder} were in use "
                    f"for {self.options.seconds:g} s",
                )
            time.sleep(_POLL_SECONDS)

    def _room_for(self, size: int) -> bool:
        """Remove what was used longest ago until there is room, if that is enough."""
        files, taken = self._contents()
        taken += sum(bytes_ for _, bytes_, _ in files)
        for _, bytes_, path in sorted(files):
            if taken + size <= self.options.size:
                break
            if (lock := _locked(path, os.O_RDONLY, fcntl.LOCK_EX)) is not None:
                path.unlink()
                os.close(lock)
                taken -= bytes_
        return taken + size <= self.options.size

    def _contents(self) -> tuple[list[tuple[float, int, Path]], int]:
        """Time of use, bytes and path of each whole file, and the bytes that are set aside for others. Removes what
        processes that are gone were fetching."""
        files: list[tuple[float, int, Path]] = []
        parts: list[tuple[str, Path]] = []
        aside: dict[str, int] = {}
        for path in map(Path, os.scandir(self.folder)):
            found = _NAME.fullmatch(path.name)
            if found is None:
                continue
            if path.suffix == _PART:
                parts.append((found[1], path))
            elif path.suffix != _FETCH:
                about = path.stat()
                files.append((about.st_mtime, about.st_size, path))
            elif (size := _set_aside(path)) is not None:
                aside[found[1]] = size
        for key, path in parts:
            if key not in aside:
                path.unlink(missing_ok=True)
        return files, sum(aside.values())

    @contextmanager
    def _folder_locked(self) -> Iterator[None]:
        lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _name(address: str, known: Stored) -> str:
    """Another one for another content. Where nobody can tell whether it changed, a new one each time."""
    said = f"{known.size} {known.tag}" if known.tag else uuid.uuid4().hex
    key = hashlib.sha256(f"{address}\n{said}".encode()).hexdigest()[:32]
    suffix = PurePosixPath(urlsplit(address).path).suffix.lower()
    plain = re.fullmatch(r"\.[a-z0-9]{1,4}", suffix) and suffix != _PART
    return key + (suffix if plain else "")


def _set_aside(path: Path) -> int | None:
    """Bytes that somebody is fetching; None if nobody is any more."""
    if (lock := _locked(path, os.O_RDWR, fcntl.LOCK_EX)) is not None:
        path.unlink()
        os.close(lock)
        return None
    try:
        return int(path.read_text() or 0)
    except FileNotFoundError:
        return None


def _held(path: Path) -> int | None:
    """Descriptor of a whole file that nobody removes while it is open; None if there is none, or none any more."""
    return _locked(path, os.O_RDONLY, fcntl.LOCK_SH)


def _locked(path: Path, flags: int, kind: int) -> int | None:
    """Descriptor of the file that is at `path`, locked; None if there is none, or another has it."""
    try:
        lock = os.open(path, flags, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), os.stat(path)):  # not one that was removed or replaced meanwhile
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(lock)
    return None
