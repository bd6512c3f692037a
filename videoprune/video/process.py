"""The caller's end of the decoding process: start it, ask it, kill it at the deadline.

A message is 4 bytes of length (big-endian), that many bytes of JSON, and, where the JSON has a `shape`, the
uint8 pixels of that shape. Plain pipes and `python -m` work from any main module, under pytest and inside Ray
actors.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import weakref
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

_LAST_WORDS_SECONDS = 5.0


class DecoderDiedError(Exception):
    """A signal ended the decoding process before it answered. `late`: it was killed at the deadline."""

    def __init__(self, message: str, *, late: bool) -> None:
        super().__init__(message)
        self.late = late


def worker_command(module: str = "videoprune.video.worker") -> list[str]:
    # -P: a file named like a standard module in the current folder must not be imported.
    return [sys.executable, "-P", "-m", module]


class DecoderProcess:
    """One decoding process, started when first asked and again after it died. For one thread at a time."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._end: weakref.finalize | None = None

    def ask(self, request: dict[str, Any], seconds: float) -> tuple[dict[str, Any], NDArray[np.uint8] | None]:
        """Send `request` and wait for its answer.

        Raises DecoderDiedError after `seconds`, or if the process crashes, and RuntimeError if Python ends
        it: then the installation is at fault, not the video.
        """
        process = self._running()
        late = threading.Event()

        def expire() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(max(seconds, 0.0), expire)
        timer.daemon = True
        timer.start()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            send(process.stdin, {**request, "seconds": seconds})
            header = receive(process.stdout)
            if header is None:
                raise EOFError
            pixels = receive_pixels(process.stdout, header["shape"]) if "shape" in header else None
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise self._post_mortem(late.is_set(), seconds) from None
        except BaseException:  # an interrupt leaves half an answer in the pipe
            self.close()
            raise
        finally:
            timer.cancel()
        timer.join()  # it may be killing just now
        if late.is_set():
            self.close()
        return header, pixels

    def close(self) -> None:
        """End the process. It may be asked again; a new one then starts."""
        if self._end is not None:
            self._end()
        if self._errors is not None:
            self._errors.close()
        self._process = self._errors = self._end = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._owner != os.getpid():  # forked: the process that runs is the parent's
            self._owner, self._process = os.getpid(), None
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the process)
        self._process = subprocess.Popen(
            worker_command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            env=worker_environment(),
            process_group=0,  # Ctrl-C is for the caller, who may want to finish this video
        )
        self._end = weakref.finalize(self, end_process, self._process, os.getpid())
        return self._process

    def _post_mortem(self, late: bool, seconds: float) -> Exception:
        assert self._process is not None
        assert self._errors is not None
        try:
            code = self._process.wait(_LAST_WORDS_SECONDS)
        except subprocess.TimeoutExpired:  # it closed its pipe and lives on
            self._process.kill()
            code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        self.close()
        if late:
            return DecoderDiedError(f"gave no answer within {seconds:.1f} s and was killed", late=True)
        if code < 0:
            return DecoderDiedError(f"crashed (signal {-code})", late=False)
        return RuntimeError(
            f"the decoding process ended with status {code}: {lines[-1] if lines else 'no message'}"
        )


def worker_environment() -> dict[str, str]:
    """The caller's, with the folder of this package first: the caller may have found it by sys.path alone."""
    root = str(Path(__file__).resolve().parents[2])
    known = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{known}" if known else root}


def end_process(process: subprocess.Popen[bytes], owner: int) -> None:
    """Kill and bury. A forked copy of the owner has a copy of `process` too, and must leave it alone."""
    if os.getpid() != owner:
        return
    process.kill()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        pipe.close()
    process.wait()


def send(stream: IO[bytes], header: dict[str, Any], pixels: NDArray[np.uint8] | None = None) -> None:
    if pixels is not None:
        header = {**header, "shape": pixels.shape}
    data = json.dumps(header).encode()
    _write_all(stream, len(data).to_bytes(4, "big") + data)
    if pixels is not None:
        _write_all(stream, np.ascontiguousarray(pixels).data.cast("B"))
    stream.flush()


def receive(stream: IO[bytes]) -> dict[str, Any] | None:
    """The next message without its pixels; None if the other side is gone."""
    length = bytearray(4)
    if not _read_into(stream, memoryview(length)):
        return None
    data = bytearray(int.from_bytes(length, "big"))
    return json.loads(data) if _read_into(stream, memoryview(data)) else None


def receive_pixels(stream: IO[bytes], shape: list[int]) -> NDArray[np.uint8]:
    pixels = np.empty(shape, dtype=np.uint8)
    if math.prod(shape) and not _read_into(stream, pixels.data.cast("B")):
        raise EOFError
    return pixels


def _write_all(stream: IO[bytes], data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[stream.write(rest) or 0 :]


def _read_into(stream: IO[bytes], buffer: memoryview) -> bool:
    """Fill `buffer`; False if the stream ends first."""
    done = 0
    while done < len(buffer):
        count = stream.readinto(buffer[done:])  # type: ignore[attr-defined]
        if not count:
            return False
        done += count
    return True
