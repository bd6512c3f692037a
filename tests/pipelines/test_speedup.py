"""`videoprune speedup` end to end on a tiny model: every setting on the same frames, resumable, with a report."""

from __future__ import annotations

import json

import pytest

from pipelines.cli import main
from pipelines.measure.memory import peak_above
from pipelines.run.results import read_rows

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
    assert "holds figures of another model; " in capsys.readouterr().err


def test_a_method_that_is_none_is_refused(tiny, clips, tmp_path, capsys):
    words = ["speedup", "moving-shapes", "--model", str(tiny), "--data", str(clips), "--out", str(tmp_path)]
    assert main([*words, "--methods", "fast"]) == 2
    assert "method='fast'; allowed: none, videoprune" in capsys.readouterr().err
