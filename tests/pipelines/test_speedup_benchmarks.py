"""`videoprune speedup` on the published benchmarks: samples, scores, killed and resumed, planned, judged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.cli import main
from pipelines.measure.run import _Run
from pipelines.run.results import read_rows
from tests.pipelines.benchmark_folders import FOLDERS
from videoprune.eval.benchmarks.registry import benchmark
from videoprune.eval.judge import Reply

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folders(tmp_path_factory, clips):
    return {name: make(tmp_path_factory.mktemp(name) / "data", clips) for name, make in FOLDERS.items()}


def words(name, data, model, out, *more):
    split = [] if name in ("videomme", "moving-shapes") else ["--split", "test"]
    few = ["--methods", "none,random", "--retain", "0.25", "--runs", "1", "--max-new-tokens", "2"]
    fixed = ["--data", str(data), "--model", str(model), "--out", str(out), "--device", "cpu"]
    return ["speedup", name, *fixed, *split, *few, *more]


@pytest.fixture(scope="module")
def done(folders, tmp_path_factory):
    """Three videos, one of each duration, of which the long one is not there."""
    pytest.importorskip("matplotlib")
    out = tmp_path_factory.mktemp("done")
    argv = words("videomme", folders["videomme"], "llava-demo", out, "--concurrency", "1,2", "--subtitles")
    assert main(argv) == 1
    return out


def test_scores_stand_by_duration_beside_what_the_benchmark_says(done):
    results = json.loads((done / "results.json").read_text())
    rows = {(r["method"], r["concurrency"]): r for r in results["rows"]}
    assert set(rows) == {("none", 1), ("none", 2), ("random", 1), ("random", 2)}
    scores = json.loads((done / "scores.json").read_text())["8"]
    for (method, _), row in rows.items():
        label = "none" if method == "none" else "random@0.25"
        for metric in ("official", "corrected"):
            said = scores[label]["metrics"][metric]
            for group, figure in row["scores"][metric].items():
                assert figure["n"] == said[group]["n"]
                assert (figure["value"] or 0) == pytest.approx(said[group]["value"], abs=1e-3)
                assert figure["difference"] is not None
        assert set(row["scores"]["corrected"]) == {"all", "short", "medium", "long"}
        assert row["accuracy"]["all"] == pytest.approx(row["scores"]["corrected"]["all"]["value"] / 100)
        assert (row["accuracy"]["questions"], row["accuracy"]["failed"]) == (9, 3)
        assert row["seconds"]["end_to_end"]["median"] > row["seconds"]["total"]["median"]
        assert row["encode_once_ask_many"]["questions"] == 3
    assert rows["random", 1]["retention"] == pytest.approx(33 / 129)  # 32 of 128, and the newline
    assert rows["random", 1]["retention"] == rows["random", 2]["retention"]
    assert results["meta"]["metric"] == "corrected"


def test_the_report_names_the_sample_the_choices_and_what_was_lost(done):
    text = (done / "tables.md").read_text()
    sample = json.loads((done / "sample.json").read_text())
    assert sorted(sample["names"]) == ["001", "002", "003"]
    assert sample["by_duration"] == {"short": 1, "medium": 1, "long": 1}
    for told in (
        "all 9 questions on 3 videos (1 short, 1 medium, 1 long); videos in sample.json, digest",
        "Figures are of Video-MME test, protocol official; no choice was made on it; settings of ours were chosen on",
        "Accuracy is `corrected`",
        "random 25.6 %",
        "Note: 3 without an answer (missing)",
        "corrected: medium (3)",
        "a video is encoded once for all its questions",
    ):
        assert told in text
    failed = [r for r in read_rows(done / "answers.jsonl").values() if r["outcome"] == "failed"]
    assert len(failed) == 6
    assert all(r["reason"].startswith("missing: no made_003") for r in failed)


def killed_speedup(after, argv):
    """`videoprune speedup`, whose process ends by SIGKILL after some clips were asked about."""
    asked, count = _Run.asked, [0]

    def deadly(self, *given):
        count[0] += 1
        if count[0] > after:
            os.kill(os.getpid(), signal.SIGKILL)
        return asked(self, *given)

    _Run.asked = deadly
    main(argv)


def test_killed_and_resumed_no_row_is_lost_or_doubled(done, folders, tmp_path):
    pytest.importorskip("matplotlib")
    argv = words("videomme", folders["videomme"], "llava-demo", tmp_path / "killed", "--subtitles")
    code = (
        "import sys; from tests.pipelines.test_speedup_benchmarks import killed_speedup; "
        "killed_speedup(3, sys.argv[1:])"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", code, *argv], env=env, capture_output=True, timeout=600)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    path = tmp_path / "killed" / "answers.jsonl"
    before = path.read_bytes()
    assert len(read_rows(path)) == 9  # three clips under one setting each
    path.write_bytes(before + b'{"question_id": "torn')
    assert main(argv) == 1
    assert path.read_bytes().startswith(before)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == len({line["question_id"] for line in lines}) == 18
    whole = read_rows(done / "answers.jsonl")
    for line in lines:
        same = whole[line["question_id"]]
        assert {k: v for k, v in line.items() if "seconds" not in k} == {
            k: v for k, v in same.items() if "seconds" not in k
        }


def test_a_sample_grows_and_keeps_what_was_measured(folders, tiny, tmp_path):
    pytest.importorskip("matplotlib")
    argv = words("videomme", folders["videomme"], tiny, tmp_path / "out")
    main([*argv, "--limit", "5"])
    first = json.loads((tmp_path / "out" / "sample.json").read_text())
    assert (first["videos"], first["questions"]) == (1, 3)
    before = (tmp_path / "out" / "answers.jsonl").read_bytes()
    main(argv)
    names = json.loads((tmp_path / "out" / "sample.json").read_text())["names"]
    assert names[:1] == first["names"]
    assert (tmp_path / "out" / "answers.jsonl").read_bytes().startswith(before)
    assert len(read_rows(tmp_path / "out" / "answers.jsonl")) == 18
    assert main([*argv, "--seed", "5"]) == 2  # another sample


METRICS = {
    "nextqa": "official",
    "nextoe": "WUPS@0",
    "msvd": "exact match",
    "activitynet": "exact match",
}


@pytest.mark.parametrize("name", METRICS)
def test_every_benchmark_is_measured_by_its_own_metric(name, folders, tiny, tmp_path):
    pytest.importorskip("matplotlib")
    assert main(words(name, folders[name], tiny, tmp_path, "--limit", "12")) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["meta"]["dataset"] == f"{benchmark(name).title} test, protocol official"
    for row in results["rows"]:
        figure = row["scores"].get(METRICS[name]) or row["scores"]["accuracy"]  # without its word data
        assert figure["all"]["n"] == row["accuracy"]["questions"] > 0
        assert row["accuracy"]["all"] == pytest.approx(figure["all"]["value"] / 100)
    if name == "nextoe" and "accuracy" in results["rows"][0]["scores"]:
        assert "videoprune[benchmarks]" in " ".join(results["meta"]["notes"])


@pytest.mark.parametrize("name", [*FOLDERS, "moving-shapes"])
def test_a_plan_tells_time_memory_and_what_waits_and_writes_nothing(
    name, folders, clips, tiny, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    data = clips if name == "moving-shapes" else folders[name]
    before = sorted(p for p in Path(data).rglob("*"))
    argv = words(name, data, tiny, tmp_path / "out", "--concurrency", "1,3", "--plan")
    assert main(argv) == 0
    shown = capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    assert sorted(p for p in Path(data).rglob("*")) == before
    lines = [line.split(" | ") for line in shown.splitlines() if line.startswith(("| none", "| random@0.25"))]
    steps = [line for line in lines if len(line) == 9]
    assert [(line[0].strip("| "), line[2]) for line in steps] == [
        (label, count) for label in ("none", "random@0.25") for count in ("1", "3")
    ]
    for line in steps:
        seconds = dict(zip(("decode", "encode", "LLM"), map(float, line[3:6]), strict=True))
        assert seconds[line[6]] == max(seconds.values())
    assert len(lines) - len(steps) == 2
    answers = 2 * {"activitynet": 30}.get(name, 9)
    assert f"for 2 settings and {answers} answers" in shown
    assert "What takes longest: with 1 at once " in shown
    assert "nothing written" in shown


def test_a_judge_adds_its_figures(folders, tiny, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")

    class Made:
        max_tokens = 8

        def __init__(self, model, device):
            self.asked = 0

        def __call__(self, messages):
            self.asked += 1
            return Reply("{'pred': 'yes', 'score': 4}", "made")

    monkeypatch.setattr("pipelines.local_judge.LocalJudge", Made)
    assert main(words("msvd", folders["msvd"], tiny, tmp_path, "--judge", "made")) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    figure = results["rows"][0]["scores"]["judge: yes over all questions"]["all"]
    answered = sum(bool(r.get("text")) for r in read_rows(tmp_path / "answers.jsonl").values()) / 2
    assert (figure["n"], figure["value"]) == (9, pytest.approx(100 * answered / 9))
    assert json.loads((tmp_path / "scores.json").read_text())["4"]["none"]["judge"]["rule"] == "video-chatgpt"


def test_what_does_not_fit_together_is_refused(folders, tiny, tmp_path, capsys):
    argv = words("videomme", folders["videomme"], tiny, tmp_path, "--judge", "x")
    assert main(argv) == 2
    assert "Video-MME is not scored by a judge" in capsys.readouterr().err
    assert main(["speedup", "msvd", "--data", str(folders["msvd"]), "--model", str(tiny)]) == 2
    assert "split=None; name one for msvd with --split" in capsys.readouterr().err
    assert main(["speedup", "videomme", "--model", str(tiny)]) == 2
    assert "data=None; Video-MME must be given with --data" in capsys.readouterr().err
