"""Questions of a run that are asked while their video plays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.cli import main
from pipelines.run import stream_run
from pipelines.run.model_stage import ModelStage
from pipelines.run.stages import ClipItem, group_by_video
from pipelines.run.status import ActorStatus
from pipelines.run.stream_run import StreamOptions, _Playing
from videoprune.config import preset
from videoprune.engine import Engine
from videoprune.eval.benchmarks.moving_shapes.load import load
from videoprune.result_row import ResultRow
from videoprune.stream import StreamConfig, StreamSession
from videoprune.types import UNUSABLE, Sample

OPTIONS = StreamOptions(fps=4.0, memory=StreamConfig(max_visual_tokens=20_000))


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Engine:
    return Engine(str(tiny), preset("none"), device="cpu")


def rows_of(engine: Engine, samples: list[Sample]) -> list[ResultRow]:
    stage = ModelStage.around(engine, max_new_tokens=2)
    return [row for part in stream_run.run(group_by_video(samples), stage, OPTIONS) for row in part]


def first_item(clips: Path) -> ClipItem:
    return group_by_video(load(clips))[0]


def test_each_question_sees_what_was_shown_before_it(engine, clips, monkeypatch):
    seen: list[float] = []
    ask = StreamSession.ask

    def spy(self, question, **more):
        answer = ask(self, question, **more)
        seen.append(answer.asked_at)
        return answer

    monkeypatch.setattr(StreamSession, "ask", spy)
    item = first_item(clips)
    times = (None, 1.0, 0.3, 2.0, 1.0)
    asked = [replace(item.samples[0], question_id=f"q{i}", until=until) for i, until in enumerate(times)]
    rows = rows_of(engine, asked)
    assert [row["question_id"] for row in rows] == ["q2", "q1", "q4", "q3", "q0"]
    assert all(row["outcome"] == "complete" for row in rows)
    # Frames come four a second.
    assert seen[:4] == pytest.approx([0.25, 0.75, 0.75, 1.75])
    assert seen[4] > 1.75
    dense = [row["tokens"]["dense"] for row in rows]
    assert dense == sorted(dense)
    assert dense[1] == dense[2]
    for row, at in zip(rows, seen, strict=True):
        spans = [tuple(map(float, span.split("-"))) for span in row["meta"]["cited"].split()]
        assert spans
        assert all(0 <= a <= b <= at + 0.05 for a, b in spans)
        assert float(row["meta"]["first_token"]) > 0


def test_rows_are_those_of_a_session(engine, clips):
    """The same frames by hand."""
    from videoprune.video.live import open_live

    sample = first_item(clips).samples[0]
    (row,) = rows_of(engine, [sample])
    source, session = (
        open_live(sample.video, fps=4.0, size=engine.frame_size, paced=False),
        StreamSession(engine, OPTIONS.memory),
    )
    try:
        while (frame := source.next(30)) is not None:
            session.add(frame.pixels, frame.seconds)
    finally:
        source.close()
    answer = session.ask(sample, max_new_tokens=2)
    assert row["text"] == answer.text
    assert row["tokens"] == answer.trace.as_dict()


def test_what_cannot_be_played_fails_with_its_reason(engine, clips, tmp_path):
    item = first_item(clips)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all" * 100)
    asked = [
        Sample("gone", str(tmp_path / "gone.mp4"), "?", until=1.0),
        Sample("gone too", str(tmp_path / "gone.mp4"), "?", until=2.0),
        Sample("marked", item.video, "?", meta={UNUSABLE: "missing: no such clip"}),
        Sample("broken", str(broken), "?"),
        Sample("good", group_by_video(load(clips))[1].video, "What moves?"),
    ]
    rows = {row["question_id"]: row for row in rows_of(engine, asked)}
    assert {q: row["outcome"] for q, row in rows.items()} == dict.fromkeys(
        ("gone", "gone too", "marked", "broken"), "failed"
    ) | {"good": "complete"}
    assert "gone.mp4" in rows["gone"]["reason"]
    assert rows["marked"]["kind"] == "missing"
    assert "broken.mp4" in rows["broken"]["reason"]


def test_questions_of_one_second_bear_alike(engine, clips):
    item = first_item(clips)
    asked = [replace(item.samples[0], question_id=f"q{i}", until=1.0) for i in range(3)]
    for stage in ("decode", "encode"):
        seconds = [row["seconds"][stage] for row in rows_of(engine, asked)]
        assert seconds[0] > 0
        assert seconds == pytest.approx([seconds[0]] * 3, abs=3e-6)  # written to the microsecond


def test_waiting_for_frames_is_no_work_of_the_model(engine, clips):
    item, now, status = first_item(clips), [0.0], ActorStatus()
    status.clock = lambda: now[0]  # type: ignore[method-assign]
    ask, wait = StreamSession.ask, _Playing._frames

    def slow_ask(self, question, **more):
        now[0] += 5.0
        return ask(self, question, **more)

    def slow_frames(self, source):
        for frame in wait(self, source):
            now[0] += 100.0
            yield frame

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StreamSession, "ask", slow_ask)
        patch.setattr(_Playing, "_frames", slow_frames)
        stage = ModelStage.around(engine, max_new_tokens=2)
        list(stream_run.run([item], stage, OPTIONS, status=status))
    assert status.model_seconds == 5.0 * len(item.samples)


def test_frames_that_cannot_be_encoded_fail_their_video_alone(engine, clips):
    one, other = group_by_video(load(clips))[:2]
    options = StreamOptions(fps=4.0, memory=StreamConfig(max_visual_tokens=8, max_steps=20, window=1))
    stage = ModelStage.around(engine, max_new_tokens=2)
    rows = [row for part in stream_run.run([one, other], stage, options) for row in part]
    assert len(rows) == len(one.samples) + len(other.samples)
    assert {row["outcome"] for row in rows} == {"failed"}
    assert all("max_visual_tokens=8" in row["reason"] for row in rows)


def test_a_strange_question_fails_alone(engine, clips):
    item = first_item(clips)
    asked = [replace(item.samples[0], question_id="long", prompt="word " * 200_000), item.samples[1]]
    found = {row["question_id"]: row["outcome"] for row in rows_of(engine, asked)}
    assert found == {"long": "failed", item.samples[1].question_id: "complete"}


def test_the_command_goes_on_and_refuses_another_memory(tiny, clips, tmp_path, capsys):
    words = ["eval", "moving-shapes", "--data", str(clips), "--model", str(tiny), "--prune", "none"]
    words += ["--executor", "stream", "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main([*words, "--limit", "2"]) == 0
    rows = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert len(rows) == 2
    assert main([*words, "--limit", "4"]) == 0
    again = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert set(rows) <= set(again)
    assert len(again) in (4, 5)  # a clip that was half asked is asked whole
    capsys.readouterr()
    assert main([*words, "--limit", "4", "--window", "3"]) == 2
    assert "other settings" in capsys.readouterr().err


@pytest.mark.parametrize("more", [["--plan"], ["--frames", "4"]])
def test_what_only_whole_clips_can_is_refused(more, tiny, clips, capsys):
    words = ["eval", "moving-shapes", "--data", str(clips), "--model", str(tiny), "--executor", "stream"]
    assert main([*words, *more]) == 2
    assert f"{more[0]}" in capsys.readouterr().err
