"""Standing questions of a run: asked every second, of what was shown since, until one answer is the signal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.run import stream_run
from pipelines.run.model_stage import ModelStage
from pipelines.run.stages import group_by_video
from pipelines.run.stream_run import StreamOptions
from videoprune.config import preset
from videoprune.engine import Engine
from videoprune.eval.benchmarks.moving_shapes.load import load
from videoprune.eval.benchmarks.moving_stream.bench import MovingStream
from videoprune.eval.benchmarks.moving_stream.make import make_streams
from videoprune.eval.benchmarks.stream_times import (
    ANSWERED_AT,
    ASKED_AT,
    DUE,
    POLL,
    POLL_OPTIONS,
    POLL_SINCE,
    is_standing,
)
from videoprune.result_row import ResultRow
from videoprune.stream import StreamConfig, StreamSession
from videoprune.types import Sample

OPTIONS = StreamOptions(fps=4.0, memory=StreamConfig(max_visual_tokens=20_000))
Reply = Callable[[Sample, float], tuple[str, str]]  # question, second of the newest frame -> text, choice


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Engine:
    return Engine(str(tiny), preset("none"), device="cpu")


@pytest.fixture
def video(clips: Path) -> str:
    return group_by_video(load(clips))[0].video


def waits(video: str, until: float | None = None, options: str = "", since: str = "0", **more: str) -> Sample:
    meta = {ASKED_AT: "0", DUE: "2", POLL: "Is it there?", POLL_SINCE: since} | more
    meta |= {POLL_OPTIONS: options} if options else {}
    return Sample("w", video, "Tell me when.", (), "there", meta, "Say what.", until=until)


def run(
    engine: Engine, samples: list[Sample], reply: Reply, patch: pytest.MonkeyPatch, *, asks_once: bool = False
) -> tuple[list[ResultRow], list[tuple[str, float, float | None]]]:
    """Rows, and of each question its text, the newest second that it saw, and since when. asks_once: the model answers
    the first question alone, which is quicker."""
    asked: list[tuple[str, float, float | None]] = []
    said: list[Any] = []
    ask = StreamSession.ask

    def spy(self: StreamSession, question: Sample, *, since: float | None = None, **more: Any) -> Any:
        answer = said[0] if asks_once and said else ask(self, question, since=since, **more)
        said.append(answer)
        answer = replace(answer, asked_at=self.stats().last)
        asked.append((question.question, answer.asked_at, since))
        text, choice = reply(question, answer.asked_at)
        return replace(answer, text=text, choice=choice)

    patch.setattr(StreamSession, "ask", spy)
    stage = ModelStage.around(engine, max_new_tokens=2)
    return [r for rows in stream_run.run(group_by_video(samples), stage, OPTIONS) for r in rows], asked


def test_asked_every_second_until_it_says_yes(engine, video, monkeypatch):
    def reply(question: Sample, now: float) -> tuple[str, str]:
        if question.prompt == "Say what.":
            return "a circle", ""
        return ("Yes." if now > 1.5 else "No."), ""

    (row,), asked = run(engine, [waits(video, until=3.0)], reply, monkeypatch)
    assert [text for text, *_ in asked] == ["Is it there?", "Is it there?", "Tell me when."]
    assert [now for _, now, _ in asked] == pytest.approx([0.75, 1.75, 1.75])
    assert {since for *_, since in asked} == {0.0}
    assert (row["text"], row["outcome"], row["meta"][ANSWERED_AT]) == ("a circle", "complete", "2")
    assert row["meta"]["polls"] == "2"
    assert row["seconds"]["llm"] > 0


def test_the_last_option_means_not_yet(engine, video, monkeypatch):
    sample = waits(video, options="left\nright\nnot shown", since="1")
    (row,), asked = run(engine, [sample], lambda _, now: ("C", "C") if now < 1 else ("B", "B"), monkeypatch)
    assert [now for _, now, _ in asked] == pytest.approx([1.75])  # nothing was shown since 1 before
    assert (row["text"], row["meta"][ANSWERED_AT]) == ("B", "2")
    (row,), asked = run(engine, [sample], lambda *_: ("?", ""), monkeypatch)  # no letter is no signal
    assert row["meta"][ANSWERED_AT] == ""
    assert len(asked) > 1


def test_silence_is_a_row(engine, video, monkeypatch):
    once = Sample("once", video, "And now?", until=1.0)
    rows, asked = run(engine, [waits(video, until=2.0), once], lambda *_: ("no", ""), monkeypatch)
    by_id = {row["question_id"]: row for row in rows}
    assert sorted(by_id) == ["once", "w"]
    assert (by_id["w"]["text"], by_id["w"]["meta"][ANSWERED_AT]) == ("", "")
    assert by_id["w"]["tokens"]["dense"] > 0
    assert max(now for _, now, _ in asked) < 2.0
    assert by_id["once"]["text"] == "no"


def test_what_is_never_asked_failed(engine, video, monkeypatch):
    late = waits(video, until=None, since="3600", **{ASKED_AT: "3600"})
    (row,), asked = run(engine, [late], lambda *_: ("yes", ""), monkeypatch)
    assert not asked
    assert row["outcome"] == "failed"
    assert row["reason"] == "unasked: the video ends before 3601 s, when it is asked first"


def test_a_poll_that_raises_fails_its_question_alone(engine, video, monkeypatch):
    def reply(question: Sample, now: float) -> tuple[str, str]:
        if question.question == "Is it there?":
            raise RuntimeError("no answer")
        return "fine", ""

    rows, _ = run(engine, [waits(video), Sample("once", video, "And now?")], reply, monkeypatch)
    found = {row["question_id"]: (row["outcome"], row["reason"]) for row in rows}
    assert found == {"w": ("failed", "RuntimeError: no answer"), "once": ("complete", "")}


def test_alerts_of_a_stream_get_rows_and_a_score(engine, tmp_path, monkeypatch):
    folder = make_streams(tmp_path / "made", streams=1, minutes=4, size=48, fps=1, workers=1)
    bench = MovingStream()
    standing = [s for s in bench.load(folder, split="test") if is_standing(s)]

    def reply(question: Sample, now: float) -> tuple[str, str]:
        assert question.options[-1] == "not shown"
        letter = "ABCDE"[question.options.index("not shown")]
        due = next(s.meta[DUE] for s in standing if s.question_id == question.question_id)
        return ("A", "A") if due and now >= float(due) else (letter, letter)

    rows, asked = run(engine, standing, reply, monkeypatch, asks_once=True)
    assert len(rows) == len(standing) == 4
    scores = bench.score(rows, split="test", protocol="official").as_dict()
    assert scores["metrics"]["alerts in time"]["all"]["sum"] == 4
    assert {since for *_, since in asked} == {0.0}
