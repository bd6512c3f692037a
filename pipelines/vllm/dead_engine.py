"""A caller that waits for a dead engine learns that it is dead.

vLLM 0.32 sees when its engine's process is gone, but `LLM` goes on waiting for what that was computing: only an engine
that could still say why it ends wakes it up.
"""

from __future__ import annotations

import threading
import time
import weakref
from typing import Any

_SECONDS = 0.5  # between looks


def wake_up_when_dead(llm: Any) -> None:
    """From now on, in a thread: what waits for the engine of `llm` raises EngineDeadError once that is dead. Does
    nothing for an engine in this process."""
    client = llm.llm_engine.engine_core
    if hasattr(client, "outputs_queue") and hasattr(client, "resources"):
        threading.Thread(
            target=_watch, args=(weakref.ref(client),), name="wake-up-when-dead", daemon=True
        ).start()


def _watch(reference: weakref.ref[Any]) -> None:
    from vllm.v1.engine.exceptions import EngineDeadError

    while (client := reference()) is not None:
        if client.resources.engine_dead:
            client.outputs_queue.put_nowait(EngineDeadError())
            return
        del client
        time.sleep(_SECONDS)
