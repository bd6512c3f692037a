from __future__ import annotations

import threading
from collections.abc import Iterator

import psutil
import pytest


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """No thread and no process is left of what the test closed."""
    threads = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= threads
    assert live_processes() == []


def live_processes() -> list[psutil.Process]:
    """Decoding processes of live sources that this process started and did not bury."""
    children = psutil.Process().children(recursive=True)
    return [
        p
        for p in children
        if p.status() == psutil.STATUS_ZOMBIE or "videoprune.video.live.worker" in p.cmdline()
    ]
