"""vLLM's processes end with the one that started them, also where that one could not say goodbye.

vLLM computes in processes of its own (EngineCore and its worker) and ends them when its caller ends in order. A
caller that is killed leaves them behind, with the model in memory. Where `VARIABLE` is set, the plug-in, which vLLM
loads in each of its processes, watches for that.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping

VARIABLE = "VIDEOPRUNE_END_WITH_PARENT"
_SECONDS = 1.0  # between looks


def watch_parent(environment: Mapping[str, str]) -> None:
    """From now on, in a thread: kill this process once its parent is another. Does nothing without `VARIABLE`."""
    if environment.get(VARIABLE):
        parent = os.getppid()
        threading.Thread(target=_until_gone, args=(parent,), name="end-with-parent", daemon=True).start()


def _until_gone(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
