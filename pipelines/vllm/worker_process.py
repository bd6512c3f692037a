"""The caller's side of `worker`: start one, ask it, end it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.vllm.ends_with_parent import VARIABLE as END_WITH_PARENT

if TYPE_CHECKING:
    from pipelines.vllm.worker import Spec

# What the environment says already stands. With its engine in the worker's own process nothing but the worker can be
# left behind, and all that vLLM does for a request is in turn with the others.
_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    END_WITH_PARENT: "1",
}
_SECONDS = 20.0  # for a worker to end by itself


class WorkerError(Exception):
    """A worker failed or died; it answers nothing more."""


class WorkerProcess:
    """log: the file of what vLLM prints. `begin` comes first."""

    def __init__(self, spec: Spec, log: Path) -> None:
        self.spec, self.log = spec, log
        self._process: subprocess.Popen[str] | None = None

    def begin(self) -> None:
        """Load, and wait until that is done. Raises WorkerError."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pipelines.vllm.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=_ENVIRONMENT | os.environ,
                start_new_session=True,  # Ctrl-C is for the caller, which ends it
            )
        self._said(asdict(self.spec))

    def ask(self, what: str, **request: Any) -> dict[str, Any]:
        """Raises WorkerError."""
        return self._said({"what": what, **request})

    def close(self) -> None:
        """One that works on something is killed."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        with suppress(OSError):  # it is gone
            self._process.stdin.close()
        try:
            self._process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _said(self, request: Mapping[str, Any]) -> dict[str, Any]:
        process = self._process
        assert process is not None, "begin() comes first"
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            raise WorkerError(f"{_how_it_died(process.wait())}; {self.log} has what it said")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise WorkerError(f"{reply['error']} ({self.log})")
        return reply


def _how_it_died(status: int) -> str:
    if status == -signal.SIGKILL:
        return "the process was killed, as happens where memory runs out: --one-at-a-time needs less"
    return f"the process died with status {status}"
