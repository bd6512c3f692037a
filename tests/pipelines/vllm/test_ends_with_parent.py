"""A process that watches its parent ends with it, even where the parent is killed; without the variable it stays."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil
import pytest

from pipelines.vllm.ends_with_parent import VARIABLE, watch_parent

CHILD = """
import os, sys, time
from pipelines.vllm.ends_with_parent import watch_parent
watch_parent(os.environ)
print(os.getpid(), flush=True)
time.sleep(600)
"""
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
time.sleep(600)
"""


def test_the_child_of_a_killed_process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    until = time.monotonic() + 60
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE and time.monotonic() < until:
        time.sleep(0.1)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_nothing_is_watched_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threading.Thread", lambda *_, **__: pytest.fail("a thread was made"))
    watch_parent({})
