"""What waits for a dead engine is woken up."""

from __future__ import annotations

import queue
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pipelines.vllm.dead_engine import wake_up_when_dead


class GoneError(Exception):
    pass


class Client:
    def __init__(self) -> None:
        self.outputs_queue: queue.Queue[Any] = queue.Queue()
        self.resources = SimpleNamespace(engine_dead=False)


def test_a_waiting_caller_gets_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("vllm.v1.engine.exceptions")
    module.EngineDeadError = GoneError
    for name in ("vllm", "vllm.v1", "vllm.v1.engine"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    client = Client()
    wake_up_when_dead(SimpleNamespace(llm_engine=SimpleNamespace(engine_core=client)))
    client.resources.engine_dead = True
    assert isinstance(client.outputs_queue.get(timeout=60), GoneError)


def test_an_engine_in_this_process_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threading.Thread", lambda *_, **__: pytest.fail("a thread was made"))
    wake_up_when_dead(SimpleNamespace(llm_engine=SimpleNamespace(engine_core=object())))
