"""What a run tells of itself while it goes: how fast, whether the model waits, what failed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from pipelines.duration import duration
from videoprune.result_row import ResultRow


@dataclass
class ActorStatus:
    """Kept up to date by an executor. models, decoders: that are there. waiting: groups that are decoded and wait for a
    model. model_seconds: that models worked, since `since`, when the first one was ready."""

    models: int = 0
    decoders: int = 0
    waiting: int = 0
    model_seconds: float = 0.0
    since: float | None = None
    clock: Callable[[], float] = time.monotonic

    def begin(self) -> None:
        """A model is ready."""
        self.since = self.clock() if self.since is None else self.since

    def busy(self) -> float | None:
        """Share of the models' time in which they worked."""
        if self.since is None or not self.models or self.clock() <= self.since:
            return None
        return min(1.0, self.model_seconds / (self.models * (self.clock() - self.since)))


@dataclass
class RunStatus:
    """total, done: questions. asked: of these, so far. videos: that they are about."""

    total: int
    done: int
    actors: ActorStatus
    asked: int = 0
    videos: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._began = self.clock()
        self._video = ""

    def add(self, rows: Iterable[ResultRow]) -> None:
        """New rows: all of a clip, or, of a stream, as they come."""
        for row in rows:
            self.videos += row["video_id"] != self._video
            self._video = row["video_id"]
            self.done += 1
            self.asked += 1
            if row["outcome"] == "failed":
                self.failed[row["kind"]] += 1

    def line(self) -> str:
        spent = max(self.clock() - self._began, 1e-9)
        parts = [f"{self.videos / spent * 3600:.0f} videos an hour"]
        if self.asked:
            left = (self.total - self.done) * spent / self.asked
            parts.append(f"{duration(left)} left")
        busy = self.actors.busy()
        if busy is not None:
            parts.append(f"model busy {100 * busy:.0f} %")
        if self.actors.decoders:
            parts.append(f"{self.actors.decoders} decoders, {self.actors.waiting} groups waiting")
        if self.failed:
            kinds = ", ".join(f"{kind} {n}" for kind, n in self.failed.most_common(3))
            parts.append(f"{self.failed.total()} failed ({kinds})")
        return f"{self.done} of {self.total} questions; " + ", ".join(parts)
