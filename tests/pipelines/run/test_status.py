"""What a run tells of itself, by hand."""

from __future__ import annotations

import pytest

from pipelines.run.progress import RunProgress
from pipelines.run.rows import failed_rows
from pipelines.run.stages import ClipItem, Failure
from pipelines.run.status import ActorStatus, RunStatus
from videoprune.result_row import ResultRow, result_row
from videoprune.types import Sample


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def rows(count: int, kind: str = "", video: str = "v") -> list[ResultRow]:
    samples = tuple(Sample(f"{i}", video, "?") for i in range(count))
    found = failed_rows(ClipItem(video, samples), Failure(kind or "none", "why"))
    return [result_row({**r, "outcome": "failed" if kind else "complete"}) for r in found]


def test_the_line_by_hand() -> None:
    clock = Clock()
    actors = ActorStatus(clock=clock)
    status = RunStatus(total=100, done=10, actors=actors, clock=clock)
    assert status.line() == "10 of 100 questions; 0 videos an hour"
    clock.now += 30
    actors.models, actors.decoders, actors.waiting = 2, 5, 3
    actors.begin()
    actors.begin()
    clock.now += 30
    actors.model_seconds = 45.0
    status.add(rows(20))
    status.add(rows(6, "missing", "w"))
    status.add(rows(3, "corrupt", "x"))
    status.add(rows(1, "corrupt", "x"))  # the same stream goes on
    assert actors.busy() == 0.75
    assert status.line() == (
        "40 of 100 questions; 180 videos an hour, 2 min left, model busy 75 %, 5 decoders, 3 groups waiting, "
        "10 failed (missing 6, corrupt 4)"
    )


def test_nobody_is_busy_before_a_model_is_ready() -> None:
    clock = Clock()
    actors = ActorStatus(models=1, model_seconds=0.0, clock=clock)
    assert actors.busy() is None
    actors.begin()
    assert actors.busy() is None
    clock.now += 1
    assert actors.busy() == 0.0


@pytest.mark.parametrize("shown", [True, False])
def test_lines_where_there_is_no_terminal(shown: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with RunProgress(RunStatus(8, 0, ActorStatus()), shown=shown, seconds=0.0) as progress:
        progress.add(rows(4))
        progress.add(rows(4))
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(";")[0] for line in said] == [
        f"videoprune: {n} of 8 questions" for n in (4, 8, 8) if shown
    ]
