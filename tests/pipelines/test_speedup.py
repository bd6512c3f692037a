"""`videoprune speedup` end to end on a tiny model: every setting on the same frames, resumable, with a report."""

from __future__ import annotations

import json

import pytest

from pipelines.cli import main
from pipelines.measure import speed_run
from pipelines.measure.memory import peak_above
from pipelines.measure.speed_plan import Plan, Setting
from pipelines.measure.speed_results import _accuracy, _row
from pipelines.measure.speed_run import run_plan
from pipelines.run.results import read_rows
from pipelines.run.stages import group_by_video
from videoprune.config import PruneConfig
from videoprune.engine import Engine
from videoprune.eval.benchmarks.moving_shapes.load import load

METHODS = "none,videoprune,random,divprune,visionzip,fastv,aim"


def speedup(tiny, clips, out, *more):
    words = ["speedup", "moving-shapes", "--model", str(tiny), "--data", str(clips), "--out", str(out)]
    return main([*words, "--methods", METHODS, "--retain", "0.5", "--runs", "2", *more])


@pytest.fixture(scope="module")
def done(tiny, clips, tmp_path_factory):
    pytest.importorskip("matplotlib")
    out = tmp_path_factory.mktemp("speed")
    assert speedup(tiny, clips, out) == 0
    return out


def test_the_report_has_every_setting_and_says_what_was_refused(done):
    results = json.loads((done / "results.json").read_text())
    rows = {r["method"]: r for r in results["rows"]}
    assert set(rows) == {"none", "videoprune", "random", "divprune", "fastv", "aim"}
    assert [r["method"] for r in results["refused"]] == ["visionzip@0.5"]
    assert "attention of one encoder" in results["refused"][0]["reason"]
    assert rows["none"]["retention"] == 1
    assert rows["none"]["speedup"]["first_token"] == 1
    assert rows["none"]["accuracy"]["agreement"] == 1
    for row in rows.values():
        assert row["accuracy"]["questions"] == 9
        assert row["runs"] == 2
        assert (row["peak_bytes"] is None) == (peak_above(lambda: None, "cpu") is None)
        assert row["seconds"]["first_token"]["low"] <= row["seconds"]["first_token"]["median"]
        assert row["flop_ideal"] >= 1 or row["method"] in ("random", "divprune")
        assert len(row["tokens"]["llm_layers"]) == 8
        if row["method"] not in ("none", "videoprune"):  # the tiny model's lambdas are made up
            assert abs(row["retention"] - 0.5) < 0.06
            assert row["kv_bytes"] < rows["none"]["kv_bytes"]
    for name in ("report.html", "results.csv", "tables.md", "stages.png", "layers.png"):
        assert (done / name).stat().st_size > 0
    assert results["frames"], "kept tokens drawn on a frame"
    assert "https://" not in (done / "report.html").read_text().replace("https://www.w3.org", "")


def test_a_run_that_is_whole_is_not_measured_again(done, tiny, clips):
    files = [done / f"{name}.jsonl" for name in ("times", "answers", "memory")]
    before = [file.read_bytes() for file in files]
    assert speedup(tiny, clips, done) == 0
    assert [file.read_bytes() for file in files] == before


def test_a_stopped_run_goes_on_and_loses_nothing(done, tiny, clips, tmp_path):
    for name in ("times.jsonl", "answers.jsonl", "run.json"):
        (tmp_path / name).write_bytes((done / name).read_bytes())
    lines = (done / "answers.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "answers.jsonl").write_bytes(b"".join(lines[:-7]) + lines[-7][:20])  # torn by a kill
    assert speedup(tiny, clips, tmp_path) == 0
    whole, again = read_rows(done / "answers.jsonl"), read_rows(tmp_path / "answers.jsonl")
    assert {k: (v["prediction"], v["tokens"]) for k, v in again.items()} == {
        k: (v["prediction"], v["tokens"]) for k, v in whole.items()
    }


def test_another_model_in_the_same_folder_is_refused(done, clips, capsys):
    words = ["speedup", "moving-shapes", "--model", "llava-demo", "--data", str(clips), "--out", str(done)]
    assert main([*words, "--methods", "random", "--retain", "0.5"]) == 2
    assert (
        "holds figures of another model or other clips; allowed: an --out folder" in capsys.readouterr().err
    )


def test_a_method_that_is_none_is_refused(tiny, clips, tmp_path, capsys):
    words = ["speedup", "moving-shapes", "--model", str(tiny), "--data", str(clips), "--out", str(tmp_path)]
    assert main([*words, "--methods", "fast"]) == 2
    assert "method='fast'; allowed: none, videoprune" in capsys.readouterr().err


def test_clips_together_are_timed_and_broken_ones_are_rows(tiny, clips, tmp_path):
    engine = Engine(str(tiny), PruneConfig(), device="cpu")
    samples = load(clips, None)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"nothing")
    samples = [*samples[:3], type(samples[0])("x", str(broken), "What?", ("a", "b"), "A"), *samples[3:]]
    settings = (
        Setting("none", 1.0, PruneConfig()),
        Setting("random", 0.5, PruneConfig.from_dict({"encoder": {"method": "random", "keep": 0.5}})),
    )
    plan = Plan(settings, (4,), (1, 2), runs=2)
    run_plan(engine, group_by_video(samples), plan, tmp_path)
    times, answers = read_rows(tmp_path / "times.jsonl"), read_rows(tmp_path / "answers.jsonl")
    together = [r for r in times.values() if r["concurrency"] == 2]
    assert len(together) == 2 * 2
    memory = read_rows(tmp_path / "memory.jsonl").values()
    assert {(r["setting"], r["concurrency"]) for r in memory} == {
        (s.label, n) for s in settings for n in (1, 2)
    }
    failed = [r for r in answers.values() if r["outcome"] == "failed"]
    assert {r["setting"] for r in failed} == {"none", "random@0.5"}
    assert all("broken.mp4" in r["reason"] for r in failed)
    assert len(answers) == 2 * 10


def test_too_few_clips_are_taken_again_in_turn(tiny, clips, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(speed_run, "_time", lambda engine, clips, samples, plan: seen.append(clips) or {})
    engine = Engine(str(tiny), PruneConfig(), device="cpu")
    plan = Plan((Setting("none", 1.0, PruneConfig()),), (4,), (5,), runs=1, answers=False)
    run_plan(engine, group_by_video(load(clips, None)), plan, tmp_path)
    paths = [c.path for c in seen[0]]
    assert len(set(paths)) == 3
    assert paths == [*paths[:3], *paths[:2]]


def test_accuracy_has_both_denominators():
    rows = [
        {"question": "1", "prediction": "A", "correct": True, "outcome": "complete", "video": "v"},
        {"question": "2", "prediction": "", "correct": False, "outcome": "complete", "video": "v"},
        {"question": "3", "prediction": "B", "correct": False, "outcome": "complete", "video": "w"},
        {"question": "4", "correct": False, "outcome": "failed", "video": "x"},
    ]
    base = [{**r, "prediction": "A"} for r in rows[:3]]
    found = _accuracy(rows, base)
    assert (found["all"], found["answered"]) == (0.25, 0.5)
    assert (found["parse_failures"], found["failed"], found["questions"]) == (1, 1, 4)
    assert found["agreement"] == 1 / 3


def test_speedups_are_paired_by_run():
    def timed(run, first):
        return {"run": run, "first_token": first, "total": first, "encode": 1.0, "prefill": 1.0}

    base = [timed(0, 4.0), timed(1, 10.0), timed(2, 3.0)]
    runs = [timed(0, 2.0), timed(1, 2.0), timed(2, 3.0)]
    setting = Setting("random", 0.5, PruneConfig())
    row = _row(setting, 8, 1, runs, base, {"retention": 0.5})
    assert row["speedup"]["first_token"] == 2.0  # the median of 2, 5 and 1, not the ratio of medians
    assert row["seconds"]["first_token"] == {"median": 2.0, "low": 2.0, "high": 3.0}
