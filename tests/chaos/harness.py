"""Runs on two nodes while one part after the other is killed, until so many kills are done; then every row is counted.

`python -m tests.chaos --kills 100`, which `make chaos` calls, prints kills by kind, rows, lost and doubled.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.cluster import Driver, TwoNodes, is_actor, is_decoder, kill_one
from tests.pipelines.tiny import write_tiny_model
from videoprune.eval.benchmarks.moving_shapes.load import load
from videoprune.eval.benchmarks.moving_shapes.make import make_benchmark

KINDS = (
    "driver",
    "decoder process",
    "decoding actor",
    "model actor",
    "raylet of the head",
    "raylet of the second node",
    "second node",
    "disk full",
)
_HANG_SECONDS = 180.0
_DISK = "1m"  # of the folder that rows are written to, where it may be mounted


@dataclass
class Found:
    """What came of it. attempts: drivers started. hung: runs that did nothing for minutes."""

    kills: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    attempts: int = 0
    questions: int = 0
    answered: int = 0
    failed_on_the_way: int = 0
    lost: int = 0
    doubled: int = 0
    hung: int = 0
    seconds: float = 0.0


class Harness:
    """work: a folder for the model, the clips and the rows. gap: most seconds between two kills."""

    def __init__(self, work: Path, *, kills: int, seed: int = 0, clips: int = 40, gap: float = 6.0) -> None:
        self.work, self.wanted, self.gap = work, kills, gap
        self.rng = random.Random(seed)
        self.model = write_tiny_model(work / "model")
        self.clips = make_benchmark(work / "clips", clips=clips, size=48, fps=4, workers=1)
        self.out = work / "out"
        self.mounted = _mount(self.out)
        self.kinds = [k for k in KINDS if k != "disk full" or self.mounted]
        self.turn: list[str] = []  # kinds of this round that are still to come
        self.found = Found()
        self.nodes = TwoNodes()

    def close(self) -> None:
        self.nodes.close()
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.out)], check=True)

    def go(self) -> Found:
        """Runs until enough was killed; the last one ends by itself."""
        started = time.monotonic()
        while self.found.kills.total() < self.wanted:
            self._run(self.out / f"{self.found.runs}")
            self._count(self.out / f"{self.found.runs}" / "results.jsonl")
            shutil.rmtree(self.out / f"{self.found.runs}")
            self.found.runs += 1
        self.found.seconds = time.monotonic() - started
        return self.found

    def _run(self, out: Path) -> None:
        """One run, started again as often as something ended it."""
        while True:
            self.found.attempts += 1
            driver = Driver(self._command(out), self.work / "driver.log")
            status = self._until_it_ends(driver, out)
            if status == 0:
                return
            (self.out / "ballast").unlink(missing_ok=True)
            if status is None or self._head_is_gone():
                self.nodes.restart()

    def _command(self, out: Path) -> list[str]:
        run = f"eval moving-shapes --data {self.clips} --model {self.model} --prune none --executor ray --workers 2"
        return [*run.split(), "--batch", "3", "--ray-address", self.nodes.address, "--out", str(out)]

    def _until_it_ends(self, driver: Driver, out: Path) -> int | None:
        """Its status; None if it hung and was killed."""
        last, size = time.monotonic(), -1
        pause = self._pause()
        while driver.process.poll() is None:
            time.sleep(0.1)
            now = time.monotonic()
            path = out / "results.jsonl"
            grown = path.stat().st_size if path.exists() else 0
            if grown != size:
                last, size = now, grown
            if now - last > _HANG_SECONDS:
                self.found.hung += 1
                driver.kill()
                return None
            if now >= pause and self.found.kills.total() < self.wanted:
                self._kill_next(driver)
                last, pause = time.monotonic(), self._pause()
        return driver.process.returncode

    def _kill_next(self, driver: Driver) -> None:
        """Every kind once in a round, in another order each time; one that cannot be killed now waits."""
        if not self.turn:
            self.turn = self.rng.sample(self.kinds, len(self.kinds))
        for kind in self.turn:
            if self._kill(kind, driver):
                self.found.kills[kind] += 1
                self.turn.remove(kind)
                return

    def _pause(self) -> float:
        return time.monotonic() + self.rng.uniform(0.2, self.gap)

    def _kill(self, kind: str, driver: Driver) -> bool:
        """Whether there was something to kill."""
        if kind == "driver":
            driver.kill()
        elif kind == "decoder process":
            return kill_one([p for p in self.nodes.processes() if is_decoder(p)], self.rng)
        elif kind in ("decoding actor", "model actor"):
            decoding = kind == "decoding actor"
            return kill_one([p for p in self.nodes.processes() if is_actor(p, decoding)], self.rng)
        elif kind == "raylet of the head":
            self.nodes.kill_head_raylet()
        elif kind == "raylet of the second node":
            self.nodes.kill_second_raylet()
        elif kind == "second node":
            self.nodes.kill_second()
        else:
            return _fill(self.out / "ballast")
        return True

    def _head_is_gone(self) -> bool:
        return not any(name == "raylet" for name, _ in self.nodes.cluster.head_node.live_processes())

    def _count(self, path: Path) -> None:
        """Every question must have one answer, whatever failed before."""
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        answered = Counter(row["question_id"] for row in rows if row["outcome"] != "failed")
        asked = [s.question_id for s in load(self.clips)]
        self.found.questions += len(asked)
        self.found.answered += len(answered)
        self.found.failed_on_the_way += sum(row["outcome"] == "failed" for row in rows)
        self.found.lost += sum(q not in answered for q in asked)
        self.found.doubled += sum(n > 1 for n in answered.values())


def _mount(folder: Path) -> bool:
    """A disk of its own, which can be filled; False where this process may not."""
    folder.mkdir(parents=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", str(folder)], capture_output=True
    )
    return done.returncode == 0


def _fill(path: Path) -> bool:
    """Write until the disk is full."""
    try:
        with path.open("ab", buffering=0) as file:
            while file.write(b"\0" * 4096):
                pass
    except OSError:
        return True
    return False
