"""The cluster that a run uses: one that is running, or one that is started here and ended at the end.

`ray.init` waits for minutes for an address that nobody answers, so it is asked first.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pipelines.run.ray_pool import RayOptions, ray
from pipelines.run.runtime_env import carried
from pipelines.run.stop import Overdue

PROBE_SECONDS = 12.0
_CONNECT_SECONDS = 4.0
_FORMS = (
    "allowed: HOST:PORT of a cluster's head (as `ray start --head` prints it), auto for the cluster of this machine, "
    "local to start one here"
)


@contextmanager
def cluster(options: RayOptions) -> Iterator[None]:
    """Connected while the block runs: to the cluster this process has, else to `options.address`, else to RAY_ADDRESS,
    else to one that is started here.

    Raises ValueError within `PROBE_SECONDS` for an address that no cluster answers."""
    if ray.is_initialized():
        yield
        return
    address, source = chosen_address(options.address, os.environ)
    if address not in (None, "auto"):
        check_reachable(address, source)
    with _own_sigterm():
        _connect(address, source, options)
    try:
        yield
    finally:
        ray.shutdown()


class ClusterLostError(ConnectionError):
    """This process's own node has left the cluster: calls of its actors would never end."""


class Lookout:
    """Looks every few seconds whether the cluster is still there. Ray tells a driver of every node but its own."""

    def __init__(self, seconds: float = 5.0) -> None:
        self.seconds = seconds
        self._node = ray.get_runtime_context().get_node_id()
        self._last = time.monotonic()

    def look(self) -> bool:
        """Whether it was time to. Raises ClusterLostError."""
        if time.monotonic() - self._last < self.seconds:
            return False
        self._last = time.monotonic()
        if not any(node["NodeID"] == self._node and node["Alive"] for node in ray.nodes()):
            raise ClusterLostError(
                f"node {self._node[:12]} of this process has left the cluster; the same command goes on with what is "
                "missing, on a cluster that is there"
            )
        return True


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Ray puts its own handler of SIGTERM in place, which ends the process: put back what was there."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:  # it was asked meanwhile
        signal.signal(signal.SIGTERM, handler)
        signal.raise_signal(signal.SIGTERM)
        raise Overdue from None
    finally:
        signal.signal(signal.SIGTERM, handler)


def chosen_address(given: str | None, environment: Mapping[str, str]) -> tuple[str | None, str]:
    """`given`, else RAY_ADDRESS, as Ray reads it, and which of them it is; None: start one here.

    Raises ValueError for Ray Client's form, and for what is no address."""
    source, address = ("ray_address", given) if given else ("RAY_ADDRESS", environment.get("RAY_ADDRESS"))
    if not address or address == "local":
        return None, source
    if address.startswith("ray://"):
        raise ValueError(
            f"{source}={address!r}: Ray Client carries every frame through its proxy, so runs do not go through it; "
            f"{_FORMS}; or `ray job submit`, which runs the command inside the cluster"
        )
    host, _, port = address.rpartition(":")
    if address != "auto" and not (host and port.isdigit()):
        raise ValueError(f"{source}={address!r}; {_FORMS}")
    return address, source


def check_reachable(address: str, source: str) -> None:
    """Raises ValueError unless a Ray cluster answers at HOST:PORT, within `PROBE_SECONDS`."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ValueError(f"{source}={address!r}: nobody answers there ({error}); {_FORMS}") from None
    # Only Ray can tell whether it is Ray, and it tells by not coming back: ask in a process that can be ended.
    ask = f"from ray._raylet import GcsClient; GcsClient(address={address!r})"
    try:
        subprocess.run(
            [sys.executable, "-c", ask],
            check=True,
            capture_output=True,
            timeout=PROBE_SECONDS - _CONNECT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(
            f"{source}={address!r}: something listens there, but it is not the head of a Ray cluster of version "
            f"{ray.__version__}; {_FORMS}"
        ) from None
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise ValueError(f"{source}={address!r}: {lines[-1]}; {_FORMS}") from None


def _connect(address: str | None, source: str, options: RayOptions) -> None:
    local = address is None
    with carried(options.runtime_env) as env:
        try:
            ray.init(
                address="local" if local else address,
                num_cpus=options.num_cpus if local else None,
                include_dashboard=False if local else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env=env,
            )
        except (ConnectionError, RuntimeError) as error:  # the latter: of another version
            raise ValueError(f"{source}={address!r}: {error}; {_FORMS}") from None
        except TypeError as error:
            raise ValueError(f"runtime_env={options.runtime_env!r}: {error}") from None
