"""A run on paper: the real schedule, with actors that only take time. `python -m pipelines.run.simulation` prints a
table.

Decoding takes 0.1 to 6 s with a long tail, as measured on real clips, the model 0.2 s a clip; actors take seconds to
start.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.run.schedule import Decode, Infer, Limits, Schedule, Start, Stop

MODEL_SECONDS = 0.2
START_SECONDS = {"model": 30.0, "decoder": 5.0}
CLIP_BYTES = 10 * 2**20
_SHORTEST, _LONGEST = 0.1, 6.0


@dataclass(frozen=True)
class Simulated:
    """busy: share of the models' time, from when the first of them is ready until the last clip, in which they work.
    decoders: at most at once. held_bytes: the most that waited on a node. driver_seconds: of the schedule for each
    clip, as measured."""

    models: int
    clips: int
    seconds: float
    busy: float
    decoders: int
    held_bytes: int
    driver_seconds: float

    @property
    def clips_per_second(self) -> float:
        return self.clips / self.seconds


def decode_seconds(rng: np.random.Generator) -> float:
    """Lognormal about 0.8 s, cut to what was measured."""
    return float(np.clip(rng.lognormal(math.log(0.6), 0.8), _SHORTEST, _LONGEST))


class _Clock:
    """Events in order of time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._count = itertools.count()

    def after(self, seconds: float, event: Callable[[], object]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._count), event))

    def step(self) -> bool:
        if not self._events:
            return False
        self.now, _, event = heapq.heappop(self._events)
        event()
        return True


class Simulation:
    """`models` models on nodes of `per_node` each, and `clips` clips."""

    def __init__(self, models: int, clips: int, limits: Limits, *, per_node: int = 8, seed: int = 0) -> None:
        self.rng, self.clock = np.random.default_rng(seed), _Clock()
        self.left, self.clips, self.models = clips, clips, models
        self.schedule: Schedule[Any, int] = Schedule(self._take, limits)
        self.names = itertools.count()
        self.busy_seconds, self.done, self.first, self.last = 0.0, 0, math.inf, 0.0
        self.most: Counter[str] = Counter()
        for number in range(models):
            self._model((f"node {number // per_node}", number))

    def run(self) -> Simulated:
        spent = 0.0
        while self.clock.step():
            began = time.perf_counter()
            found = self.schedule.actions()
            spent += time.perf_counter() - began
            for action in found:
                self._do(action)
            nodes = self.schedule.nodes.values()
            self.most["decoders"] = max(self.most["decoders"], sum(len(n.decoders) for n in nodes))
            self.most["bytes"] = max(self.most["bytes"], *(n.held for n in nodes))
            if self.done == self.clips:
                break
        seconds = self.last - self.first
        return Simulated(
            self.models,
            self.done,
            seconds,
            self.busy_seconds / (self.models * seconds),
            self.most["decoders"],
            self.most["bytes"],
            spent / self.clips,
        )

    def _take(self) -> int | None:
        if not self.left:
            return None
        self.left -= 1
        return self.left

    def _model(self, member: tuple[str, int]) -> None:
        """member: its node, and its number."""
        node = member[0]
        self.schedule.model_at(node, member)

        def ready() -> None:
            self.first = min(self.first, self.clock.now)
            self.schedule.model_free(node, member)

        self.clock.after(START_SECONDS["model"], ready)

    def _do(self, action: Any) -> None:
        if isinstance(action, Start):
            member = (action.node, next(self.names))
            self.schedule.decoder_at(action.node, member)
            self.clock.after(
                START_SECONDS["decoder"], lambda: self.schedule.decoder_free(action.node, member)
            )
        elif isinstance(action, Decode):
            node, seconds = action.member[0], decode_seconds(self.rng)
            self.clock.after(
                seconds, lambda: self.schedule.decoded(node, action.member, action.work, CLIP_BYTES, seconds)
            )
        elif isinstance(action, Infer):
            self.clock.after(MODEL_SECONDS, lambda: self._finished(action.member))
        else:
            assert isinstance(action, Stop)

    def _finished(self, member: tuple[str, int]) -> None:
        self.busy_seconds += MODEL_SECONDS
        self.done, self.last = self.done + 1, self.clock.now
        self.schedule.finished(member[0], member, MODEL_SECONDS)


def main() -> None:
    from videoprune.eval.summary import markdown_table

    rows = [Simulation(models, 3000 * models, Limits((1, 16))).run() for models in (1, 2, 4, 8, 16, 64)]
    one = rows[0].clips_per_second
    table = [
        {
            "models": r.models,
            "clips a second": f"{r.clips_per_second:.1f}",
            "of ideal": f"{r.clips_per_second / one / r.models:.2f}",
            "models busy %": f"{100 * r.busy:.1f}",
            "decoders": r.decoders,
            "waiting on a node, MiB": r.held_bytes // 2**20,
            "schedule, ms a clip": f"{1000 * r.driver_seconds:.3f}",
        }
        for r in rows
    ]
    print(markdown_table(table, list(table[0])), end="")


if __name__ == "__main__":
    main()
