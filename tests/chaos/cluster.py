"""Two Ray nodes on this machine, and what can be killed of them and of a run on them."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
from ray.cluster_utils import Cluster

ROOT = Path(__file__).parents[2]
_STORE = 80 * 2**20  # bytes of a node's object store


class TwoNodes:
    """A head with two cores and a second node with two. Nothing outlives `close`."""

    def __init__(self) -> None:
        self._start()

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def _start(self) -> None:
        args = {"num_cpus": 2, "object_store_memory": _STORE, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args=args)
        self.add_second()

    def processes(self) -> list[psutil.Process]:
        """All that the nodes' raylets started; of nothing else on this machine."""
        nodes = [self.cluster.head_node, self.second]
        raylets = [one.pid for node in nodes for name, one in node.live_processes() if name == "raylet"]
        found: list[psutil.Process] = []
        for pid in raylets:
            with contextlib.suppress(psutil.NoSuchProcess):
                found += psutil.Process(pid).children(recursive=True)
        return found

    def add_second(self) -> None:
        self.second = self.cluster.add_node(num_cpus=2, object_store_memory=_STORE)

    def restart(self) -> None:
        self.close()
        self._start()

    def close(self) -> None:
        self.cluster.shutdown()

    def kill_second(self) -> None:
        """All of its processes, at once; another node joins."""
        self.cluster.remove_node(self.second, allow_graceful=False)
        self.add_second()

    def kill_second_raylet(self) -> None:
        self.second.kill_raylet()
        self.kill_second()

    def kill_head_raylet(self) -> None:
        """The driver loses its cluster; a new one has to come."""
        self.cluster.head_node.kill_raylet()


class Driver:
    """`videoprune eval --executor ray` in a process of its own."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pipelines.cli", *command],
                env=env,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def kill_one(candidates: list[psutil.Process], rng: random.Random) -> bool:
    """Whether there was one to kill."""
    if candidates:
        with contextlib.suppress(psutil.NoSuchProcess):
            rng.choice(candidates).kill()
    return bool(candidates)


def is_decoder(process: psutil.Process) -> bool:
    return "videoprune.video.worker" in _title(process)


def is_actor(process: psutil.Process, decoding: bool) -> bool:
    """Actors that decode have a decoding process below them, those with a model none."""
    try:
        return "_StageActor" in _title(process) and any(map(is_decoder, process.children())) == decoding
    except psutil.NoSuchProcess:
        return False


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
