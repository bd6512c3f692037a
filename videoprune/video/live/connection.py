"""The caller's end of one connection's decoding process."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videoprune.video.live.address import Address
from videoprune.video.live.opening import Wanted
from videoprune.video.process import (
    end_process,
    receive,
    receive_pixels,
    send,
    worker_command,
    worker_environment,
)


class Connection:
    """Starts the process. `messages` is for one thread, `kill` for any; `close` for the first after it is done."""

    def __init__(self, address: Address, wanted: Wanted) -> None:
        self._process = subprocess.Popen(
            worker_command("videoprune.video.live.worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # FFmpeg's messages name the URL
            bufsize=0,
            env=worker_environment(),
            process_group=0,  # Ctrl-C is for the caller
        )
        self._owner = os.getpid()
        self._request = {"address": dataclasses.asdict(address), "wanted": dataclasses.asdict(wanted)}

    def messages(self) -> Iterator[tuple[dict[str, Any], NDArray[np.uint8] | None]]:
        """Those of `worker`, the last with `end`: made up here where the process dies without one."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            send(process.stdin, self._request)
            while (header := receive(process.stdout)) is not None:
                yield header, receive_pixels(process.stdout, header["shape"]) if "shape" in header else None
                if "end" in header:
                    return
        except (EOFError, OSError, ValueError):
            pass  # it died in the middle of a message
        status = process.wait()
        hung = "it did not answer in time, or its decoding process failed"
        crashed = f"its decoding process crashed (signal {-status})"
        yield {"end": crashed if status < 0 else hung, "final": False}, None

    def kill(self) -> None:
        """End the process now; `messages` then ends too."""
        self._process.kill()

    def close(self) -> None:
        """Kill and bury it."""
        end_process(self._process, self._owner)
