"""What a run of `speedup --engine vllm` does, and what of that is still to be done."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from pipelines.vllm.compared import Compared


@dataclass(frozen=True)
class VllmPlan:
    """settings: the unpruned one first. in_flight: numbers of requests. requests: in a timed turn, None: as
    `requests_of_turn` says. apart: one worker at a time. answers: whether questions are asked for their answers."""

    settings: tuple[Compared, ...]
    in_flight: tuple[int, ...]
    runs: int
    frames: int
    max_new_tokens: int
    requests: int | None = None
    apart: bool = False
    answers: bool = True

    @property
    def labels(self) -> list[str]:
        return [s.label for s in self.settings]

    def setting(self, label: str) -> Compared:
        return self.settings[self.labels.index(label)]

    def missing_runs(self, labels: Sequence[str], count: int, known: Container[str]) -> list[int]:
        """Runs with `count` in flight that one of `labels` has not: all take them anew, ratios are paired."""
        return [r for r in range(self.runs) if any(turn_key(n, count, r) not in known for n in labels)]


def turn_key(label: str, in_flight: int, run: int) -> str:
    return f"{label} {in_flight} {run}"
