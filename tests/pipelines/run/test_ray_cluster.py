"""Which cluster a run takes, and addresses that nobody answers."""

from __future__ import annotations

import os
import signal
import socket
import time

import pytest

from pipelines.run import ray_cluster
from pipelines.run.ray_cluster import _own_sigterm, check_reachable, chosen_address
from pipelines.run.stop import Overdue


def test_the_argument_comes_before_the_environment() -> None:
    env = {"RAY_ADDRESS": "head:6379"}
    assert chosen_address("other:1", env) == ("other:1", "ray_address")
    assert chosen_address(None, env) == ("head:6379", "RAY_ADDRESS")
    assert chosen_address("local", env)[0] is None
    assert chosen_address(None, {})[0] is None
    assert chosen_address("auto", env)[0] == "auto"
    assert chosen_address("[::1]:6379", {})[0] == "[::1]:6379"


@pytest.mark.parametrize("wrong", ["ray://head:10001", "head", "head:", ":6379", "head:port"])
@pytest.mark.parametrize("source", ["ray_address", "RAY_ADDRESS"])
def test_what_is_no_address_is_refused_by_its_name(wrong: str, source: str) -> None:
    given, env = (wrong, {}) if source == "ray_address" else (None, {source: wrong})
    with pytest.raises(ValueError, match=f"^{source}='{wrong}'.*allowed: HOST:PORT"):
        chosen_address(given, env)


def test_an_address_that_nobody_answers() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ValueError, match=f"ray_address='127.0.0.1:{port}': nobody answers there"):
        check_reachable(f"127.0.0.1:{port}", "ray_address")


def test_an_address_of_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "PROBE_SECONDS", ray_cluster._CONNECT_SECONDS + 4)
    since = time.monotonic()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ValueError, match=r"RAY_ADDRESS=.*not the head of a Ray cluster of version"):
            check_reachable(f"127.0.0.1:{port}", "RAY_ADDRESS")
    assert time.monotonic() - since < 15


def asked_meanwhile() -> None:
    with _own_sigterm():
        signal.signal(signal.SIGTERM, lambda *_: exit(15))  # as Ray does
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)


def test_a_signal_while_ray_starts_reaches_the_run() -> None:
    reached = []
    before = signal.signal(signal.SIGTERM, lambda *_: reached.append("ours"))
    try:
        with pytest.raises(Overdue):
            asked_meanwhile()
        assert reached == ["ours"]
        with _own_sigterm():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)
        assert reached == ["ours", "ours"]
    finally:
        signal.signal(signal.SIGTERM, before)
