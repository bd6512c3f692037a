"""Runs that stop, go on, meet other settings, and are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipelines.run import local
from pipelines.run.evaluation import Runner, RunSettings, evaluate
from pipelines.run.model_stage import ModelStage
from pipelines.run.results import model_fingerprint, read_rows
from pipelines.run.rows import failed_rows
from pipelines.run.stages import ClipItem, DecodeStage, Failure
from pipelines.run.tasks import Task
from videoprune.config import PruneConfig, preset
from videoprune.eval.benchmarks.moving_shapes.load import load
from videoprune.eval.summary import summarize
from videoprune.result_row import ResultRow, result_row
from videoprune.types import Sample

ROOT = Path(__file__).parents[3]


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def settings_for(prune: str = "none") -> RunSettings:
    return RunSettings("tiny", "fingerprint", preset(prune))


def task_of(samples: Sequence[Sample]) -> Task:
    return Task("made up", "", list(samples))


def samples_of(folder: Path, clips: int = 3, questions: int = 2) -> list[Sample]:
    """Samples whose videos are files, so that they have fingerprints."""
    found = []
    for c in range(clips):
        video = folder / f"{c}.mp4"
        video.write_bytes(b"x" * (c + 1))
        for q in range(questions):
            meta = {"video_id": str(c), "category": "color", "duration": "short"}
            found.append(Sample(f"{c}-{q}", str(video), "?", ("red", "blue"), "A", meta))
    return found


class Fake:
    """A runner that answers "A", remembers what it was asked, and fails on the clips named in `broken`."""

    def __init__(self, broken: Sequence[str] = ()) -> None:
        self.asked: list[str] = []
        self.broken = broken

    def __call__(self, items: Iterable[ClipItem]) -> Iterator[list[ResultRow]]:
        for item in items:
            self.asked.append(Path(item.video).stem)
            rows = failed_rows(item, Failure("broken", "broken"), {"decode": 1.0})
            if self.asked[-1] in self.broken:
                yield rows
                continue
            good: dict[str, Any] = {"prediction": "A", "correct": True, "outcome": "complete", "reason": ""}
            yield [result_row({**row, **good, "tokens": {"dense": 4, "fused": 2}}) for row in rows]


def test_summary_holds_scores_settings_and_speed(tmp_path: Path) -> None:
    samples = samples_of(tmp_path)
    summary = evaluate(task_of(samples), Fake(["1"]), tmp_path / "out", settings_for(), shown=False)
    assert summary == json.loads((tmp_path / "out" / "summary.json").read_text())
    rows = read_rows(tmp_path / "out" / "results.jsonl")
    scores = summarize([rows[s.question_id] for s in samples])
    assert {k: summary[k] for k in scores} == scores
    assert summary["accuracy"]["overall"] == pytest.approx(4 / 6, abs=1e-6)
    assert (summary["config"], summary["digest"]) == (
        as_json(PruneConfig().as_dict()),
        PruneConfig().digest(),
    )
    assert summary["model"] == {"name": "tiny", "fingerprint": "fingerprint"}
    assert summary["questions_asked"] == 6
    assert summary["questions_per_second"] == pytest.approx(6 / summary["wall_seconds"], rel=0.01)
    assert {"versions", "hardware", "executor"} <= set(summary)


def test_a_second_run_asks_only_what_failed(tmp_path: Path) -> None:
    samples = samples_of(tmp_path)
    first = evaluate(task_of(samples), Fake(["1"]), tmp_path, settings_for(), shown=False)
    again = Fake()
    second = evaluate(task_of(samples), again, tmp_path, settings_for(), shown=False)
    assert again.asked == ["1"]
    assert (first["counts"]["failed"], second["counts"]["failed"]) == (2, 0)
    assert second["accuracy"]["overall"] == 1.0
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 8
    idle = Fake()
    third = evaluate(task_of(samples), idle, tmp_path, settings_for(), shown=False)
    assert idle.asked == []
    assert third == second  # with the speed of the run that did the work


def test_a_clip_answered_in_part_is_asked_whole_but_written_once(tmp_path: Path) -> None:
    samples = samples_of(tmp_path)
    evaluate(task_of(samples), Fake(), tmp_path, settings_for(), shown=False)
    path = tmp_path / "results.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3]) + lines[3][:20])  # killed while it wrote the second clip's second row
    asked: list[int] = []

    def counting(items: Iterable[ClipItem]) -> Iterator[list[ResultRow]]:
        given = list(items)
        asked.extend(len(item.samples) for item in given)
        yield from Fake()(given)

    evaluate(task_of(samples), counting, tmp_path, settings_for(), shown=False)
    assert asked == [2, 2]
    assert path.read_text() == "".join(lines)


def test_rows_of_other_settings_models_or_videos_are_refused(tmp_path: Path) -> None:
    samples = samples_of(tmp_path)
    evaluate(task_of(samples), Fake(), tmp_path, settings_for(), shown=False)
    before = (tmp_path / "results.jsonl").read_bytes()
    other = RunSettings("tiny", "another", preset("none"))
    for settings in (settings_for("evoprune"), other):
        with pytest.raises(ValueError, match=r"6 of its rows \(first: question 0-0\).*--restart"):
            evaluate(task_of(samples), Fake(), tmp_path, settings, shown=False)
    earlier = [*samples[:3], replace(samples[3], until=2.0), *samples[4:]]  # asked at another time
    with pytest.raises(ValueError, match=r"1 of its rows \(first: question 1-1\)"):
        evaluate(task_of(earlier), Fake(), tmp_path, settings_for(), shown=False)
    Path(samples[2].video).write_bytes(b"another clip")
    with pytest.raises(ValueError, match="2 of its rows"):
        evaluate(task_of(samples), Fake(), tmp_path, settings_for(), shown=False)
    assert (tmp_path / "results.jsonl").read_bytes() == before
    fresh = Fake()
    evaluate(task_of(samples), fresh, tmp_path, other, restart=True, shown=False)
    assert fresh.asked == ["0", "1", "2"]
    assert len(read_rows(tmp_path / "results.jsonl")) == 6


def test_a_failed_video_may_be_replaced(tmp_path: Path) -> None:
    samples = samples_of(tmp_path)
    evaluate(task_of(samples), Fake(["1"]), tmp_path, settings_for(), shown=False)
    Path(samples[2].video).write_bytes(b"now it is a good one")
    assert evaluate(task_of(samples), Fake(), tmp_path, settings_for(), shown=False)["counts"]["failed"] == 0


def test_a_longer_selection_goes_on_from_a_shorter_one(tmp_path: Path) -> None:
    samples = samples_of(tmp_path)
    assert (
        evaluate(task_of(samples[:2]), Fake(), tmp_path, settings_for(), shown=False)["counts"]["questions"]
        == 2
    )
    more = Fake()
    assert evaluate(task_of(samples), more, tmp_path, settings_for(), shown=False)["counts"]["questions"] == 6
    assert more.asked == ["1", "2"]


def real_run(tiny: Path, clips: Path, out: Path, killed_after: int = 0) -> None:
    """An evaluation with a real model, whose process ends by SIGKILL after some clips."""
    settings = RunSettings(str(tiny), model_fingerprint(str(tiny)), preset("balanced"))
    stage = ModelStage(str(tiny), settings.prune, device="cpu", max_new_tokens=2)
    run: Runner = partial(local.run, decode=DecodeStage(4, (32, 32)), model=stage)

    def killed(items: Iterable[ClipItem]) -> Iterator[list[ResultRow]]:
        for done, rows in enumerate(run(items)):
            if done == killed_after:
                os.kill(os.getpid(), signal.SIGKILL)
            yield rows

    evaluate(task_of(load(clips)), killed if killed_after else run, out, settings, shown=False)


def test_a_killed_run_goes_on_and_ends_as_if_it_had_not_been(tiny: Path, clips: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.pipelines.run.test_evaluation import real_run\n"
        "real_run(*map(Path, sys.argv[1:4]), killed_after=2)"
    )
    command = [sys.executable, "-c", code, str(tiny), str(clips), str(tmp_path / "killed")]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    path = tmp_path / "killed" / "results.jsonl"
    assert len(read_rows(path)) == 6
    before = path.read_bytes()
    real_run(tiny, clips, tmp_path / "killed")
    assert path.read_bytes().startswith(before)
    real_run(tiny, clips, tmp_path / "whole")
    found, expected = (
        [{k: v for k, v in row.items() if k != "seconds"} for row in read_rows(p).values()]
        for p in (path, tmp_path / "whole" / "results.jsonl")
    )
    assert found == expected
    assert len(found) == 9


def test_rows_of_older_runs_still_count(tmp_path: Path) -> None:
    samples = samples_of(tmp_path)
    first = evaluate(task_of(samples), Fake(["1"]), tmp_path, settings_for(), shown=False)
    path = tmp_path / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    old = [{k: v for k, v in row.items() if k not in ("kind", "traceback")} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in old))
    again = Fake(["1"])
    assert (
        evaluate(task_of(samples), again, tmp_path, settings_for(), shown=False)["accuracy"]
        == first["accuracy"]
    )
    assert again.asked == ["1"]
