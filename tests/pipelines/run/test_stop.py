"""Runs that are asked to end: what is under way is written, nothing new begins, and the same command goes on."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from pipelines import cli
from pipelines.run import local
from pipelines.run.evaluation import evaluate
from pipelines.run.results import read_rows
from pipelines.run.stages import ClipItem, DecodedClip, DecodeStage
from pipelines.run.stop import Overdue, Stop, StoppedError
from tests.pipelines.run.test_evaluation import Fake, samples_of, settings_for, task_of
from videoprune.result_row import ResultRow


class Signalled(Fake):
    """Sends this process a signal while its first clip is under way."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def __call__(self, items: Iterable[ClipItem]) -> Iterator[list[ResultRow]]:
        for rows in super().__call__(items):
            signal.raise_signal(self.number)
            yield rows


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_behind_the_clip_under_way(number: int, tmp_path: Path) -> None:
    before = signal.getsignal(number)
    samples = samples_of(tmp_path)
    with pytest.raises(StoppedError, match="2 of 6 questions") as found:
        evaluate(task_of(samples), Signalled(number), tmp_path, settings_for(), shown=False)
    assert (found.value.signal, found.value.overdue) == (number, False)
    assert list(read_rows(tmp_path / "results.jsonl")) == ["0-0", "0-1"]
    assert not (tmp_path / "summary.json").exists()
    assert signal.getsignal(number) == before
    again = Fake()
    evaluate(task_of(samples), again, tmp_path, settings_for(), shown=False)
    assert again.asked == ["1", "2"]


def test_a_signal_during_the_last_clip_changes_nothing(tmp_path: Path) -> None:
    samples = samples_of(tmp_path, clips=1)
    summary = evaluate(task_of(samples), Signalled(signal.SIGTERM), tmp_path, settings_for(), shown=False)
    assert summary["counts"]["answered"] == 2


@pytest.mark.parametrize("how", ["again", "time"])
def test_what_takes_too_long_is_given_up(how: str) -> None:
    stop, after = Stop(seconds=0.05 if how == "time" else 60), []
    with stop.listening():
        signal.raise_signal(signal.SIGINT)
        assert not stop.overdue
        if how == "again":
            signal.raise_signal(signal.SIGTERM)
        time.sleep(5)
        after.append("not reached")
    assert stop.overdue
    assert not after
    assert stop.signal == signal.SIGINT


def test_nothing_new_begins() -> None:
    stop, begun = Stop(), []
    for item in stop.until(range(5)):
        begun.append(item)
        if item == 1:
            stop.signal = signal.SIGTERM
    assert begun == [0, 1]


def test_other_threads_do_not_listen() -> None:
    kept = []

    def listen() -> None:
        with Stop().listening():
            kept.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert kept == [before]


def test_a_video_that_hangs_does_not_hold_up_the_end() -> None:
    hung, free = threading.Event(), threading.Event()

    class Hanging(DecodeStage):
        def process_all(self, items: object) -> list[DecodedClip]:
            hung.set()
            free.wait(30)
            return []

    class NoModel:
        def setup(self) -> None:
            hung.wait(30)

        def close(self) -> None: ...

        def groups(self, items: Iterable[ClipItem]) -> Iterator[list[ClipItem]]:
            return ([item] for item in items)

    stop, since = Stop(seconds=0.2), time.monotonic()
    with stop.listening():
        run = local.run([ClipItem("a.mp4", ())], Hanging(4, None), NoModel())  # type: ignore[arg-type]
        signal.raise_signal(signal.SIGTERM)
        list(run)
    assert stop.overdue
    assert time.monotonic() - since < 20
    free.set()


@pytest.mark.parametrize("overdue", [False, True])
def test_the_command_that_goes_on_is_told(
    overdue: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = Stop()
    stop.signal, stop.overdue = signal.SIGTERM, overdue

    def ended(*_: object) -> int:
        raise StoppedError(3, 10, stop)

    def exits(status: int) -> None:
        raise SystemExit(status)

    monkeypatch.setattr(cli.evaluate, "run", ended)
    monkeypatch.setattr(cli.os, "_exit", exits)
    command = ["eval", "moving-shapes", "--out", "a folder", "--restart", "llm.lambda_=5"]
    try:
        status = cli.main(command)
    except SystemExit as end:
        status = end.code  # type: ignore[assignment]
        assert overdue
    assert status == 128 + signal.SIGTERM
    said = capsys.readouterr().err
    assert "3 of 10 questions are answered and written" in said
    assert "go on with: videoprune eval moving-shapes --out 'a folder' llm.lambda_=5" in said


def test_overdue_is_no_error_that_a_stage_would_catch() -> None:
    assert not issubclass(Overdue, Exception)
