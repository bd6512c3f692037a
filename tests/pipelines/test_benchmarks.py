"""Each published benchmark from its folder to its scores: whole, killed and resumed, in shards, scored alone."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import main
from pipelines.run import local
from pipelines.run.predictions import prediction_rows
from pipelines.run.results import read_rows
from pipelines.run.stages import ClipItem
from pipelines.run.tasks import open_task
from tests.pipelines.benchmark_folders import FOLDERS
from videoprune.eval.benchmarks.registry import benchmark
from videoprune.types import Sample

ROOT = Path(__file__).parents[2]
SIZES = {"videomme": 9, "nextqa": 9, "nextoe": 9, "msvd": 9, "activitynet": 30}


def arguments(name: str, data: Path, model: Path, out: Path, *more: str) -> list[str]:
    split = [] if name == "videomme" else ["--split", "test"]
    few = [] if "--max-new-tokens" in more else ["--max-new-tokens", "2"]
    return ["eval", name, "--data", str(data), "--model", str(model), "--out", str(out), *split, *few, *more]


def without_seconds(path: Path) -> dict[str, dict[str, Any]]:
    return {q: {k: v for k, v in r.items() if k != "seconds"} for q, r in read_rows(path).items()}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, clips: Path) -> dict[str, Path]:
    return {name: make(tmp_path_factory.mktemp(name) / "data", clips) for name, make in FOLDERS.items()}


def killed_eval(after: int, argv: Sequence[str]) -> None:
    """`videoprune eval`, whose process ends by SIGKILL after some clips."""
    run = local.run

    def deadly(items: Sequence[ClipItem], **stages: Any) -> Iterator[Any]:
        for done, rows in enumerate(run(items, **stages)):
            if done == after:
                os.kill(os.getpid(), signal.SIGKILL)
            yield rows

    local.run = deadly  # type: ignore[assignment]
    main(argv)


@pytest.mark.parametrize("name", FOLDERS)
def test_killed_and_resumed_no_row_is_lost_or_doubled(
    name: str, folders: dict[str, Path], tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = arguments(name, folders[name], tiny, tmp_path / "killed")
    code = "import sys; from tests.pipelines.test_benchmarks import killed_eval; killed_eval(1, sys.argv[1:])"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, *argv], env=env, capture_output=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    path = tmp_path / "killed" / "results.jsonl"
    before = path.read_bytes()
    assert 0 < len(read_rows(path)) < SIZES[name]
    path.write_bytes(before + b'{"question_id": "torn')
    status = main(argv)
    assert status == (1 if name == "videomme" else 0)  # one of its videos is not there
    assert path.read_bytes().startswith(before)
    lines = path.read_text().splitlines()
    assert len(lines) == len({json.loads(line)["question_id"] for line in lines}) == SIZES[name]
    main(argv)
    assert path.read_text().splitlines() == lines  # nothing is asked twice, failures are not written again
    main(arguments(name, folders[name], tiny, tmp_path / "whole"))
    assert without_seconds(path) == without_seconds(tmp_path / "whole" / "results.jsonl")
    shown = capsys.readouterr().out
    title = benchmark(name).title
    assert f"{title} test, protocol official" in " ".join(shown.split()) or name == "nextoe"
    assert "a question takes" in shown
    summary = json.loads((tmp_path / "killed" / "summary.json").read_text())
    assert all((tmp_path / "killed" / file).is_file() for file in summary["submission"])
    if name != "nextoe" or summary["scores"]:  # its word data may not be there
        assert (summary["scores"]["split"], summary["scores"]["protocol"]) == ("test", "official")
        assert summary["scores"]["questions"] == SIZES[name]
    else:
        assert "videoprune[benchmarks]" in summary["scores_reason"]


def test_a_missing_video_is_a_row_with_its_reason(
    folders: dict[str, Path], tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = arguments("videomme", folders["videomme"], tiny, tmp_path, "--subtitles")
    assert main(argv) == 1
    shown = capsys.readouterr()
    said = (
        "1 of 3 videos are missing, their questions will fail; first: missing: no made_003 (.mp4 .MP4 .mkv)"
    )
    assert said in shown.err
    rows = read_rows(tmp_path / "results.jsonl")
    assert [r["outcome"] for r in rows.values()] == ["complete"] * 6 + ["failed"] * 3
    assert rows["003-1"]["reason"].startswith("missing: no made_003 (.mp4 .MP4 .mkv) in ")
    assert "subtitle_reason" not in rows["001-1"]["meta"]
    assert rows["002-1"]["meta"]["subtitle_reason"].startswith("missing: no made_002 (.srt .vtt) in ")
    assert "3 without an answer (missing)" in shown.out


def test_subtitles_and_prompts_reach_the_model(
    folders: dict[str, Path], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from videoprune.engine import Engine

    asked: list[Sample] = []
    answer = Engine.answer

    def spy(self: Engine, tokens: Any, questions: Any, **more: Any) -> Any:
        asked.extend(questions)
        return answer(self, tokens, questions, **more)

    monkeypatch.setattr(Engine, "answer", spy)
    main(arguments("videomme", folders["videomme"], tiny, tmp_path / "a", "--subtitles"))
    prompts = {s.question_id: s.prompt for s in asked}
    assert prompts["001-1"].startswith("This video's subtitles are listed below:\na line\na line\n")
    assert prompts["002-1"].startswith("This video's subtitles are listed below:\n\nSelect the best")
    asked.clear()
    more = ("--subtitles", "--protocol", "lmms-eval")
    main(arguments("videomme", folders["videomme"], tiny, tmp_path / "b", *more))
    prompts = {s.question_id: s.prompt for s in asked}
    assert prompts["001-1"].startswith("This video's subtitles are listed below: \na line\nSelect")
    assert "below: \nNo subtitles available\nSelect" in prompts["002-1"]


def test_the_grid_is_one_image_of_six_frames(folders: dict[str, Path], tiny: Path, tmp_path: Path) -> None:
    main(arguments("nextqa", folders["nextqa"], tiny, tmp_path, "--protocol", "ig-vlm"))
    rows = list(read_rows(tmp_path / "results.jsonl").values())
    main(arguments("nextqa", folders["nextqa"], tiny, tmp_path / "plain", "--frames", "6"))
    plain = list(read_rows(tmp_path / "plain" / "results.jsonl").values())
    assert [6 * r["tokens"]["dense"] for r in rows] == [r["tokens"]["dense"] for r in plain]


def test_other_protocols_do_not_share_rows(
    folders: dict[str, Path], tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(arguments("msvd", folders["msvd"], tiny, tmp_path))
    assert main(arguments("msvd", folders["msvd"], tiny, tmp_path, "--protocol", "ig-vlm")) == 2
    assert main(arguments("msvd", folders["msvd"], tiny, tmp_path, "--max-new-tokens", "3")) == 2
    assert capsys.readouterr().err.count("come from other settings") == 2


def test_shards_are_disjoint_whole_and_scored_together(
    folders: dict[str, Path], tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in (1, 2):
        assert main(arguments("msvd", folders["msvd"], tiny, tmp_path, "--shard", f"{i}/2")) == 0
    main(arguments("msvd", folders["msvd"], tiny, tmp_path / "whole"))
    parts = [read_rows(tmp_path / f"shard-{i}-of-2" / "results.jsonl") for i in (1, 2)]
    assert [len(p) for p in parts] == [6, 3]
    assert {r["video_id"] for r in parts[0].values()}.isdisjoint(r["video_id"] for r in parts[1].values())
    capsys.readouterr()
    assert main(["score", "msvd", str(tmp_path), "--split", "test", "--json"]) == 0
    together = json.loads(capsys.readouterr().out)
    whole = json.loads((tmp_path / "whole" / "summary.json").read_text())["scores"]
    assert together["questions"] == 9
    assert {g: f["n"] for g, f in together["metrics"]["exact match"].items()} == {
        g: f["n"] for g, f in whole["metrics"]["exact match"].items()
    }


def test_limit_and_bad_words(
    folders: dict[str, Path], tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(arguments("msvd", folders["msvd"], tiny, tmp_path, "--limit", "4"))
    assert len(read_rows(tmp_path / "results.jsonl")) == 4
    capsys.readouterr()
    assert main(["eval", "msvd", "--data", str(folders["msvd"]), "--model", str(tiny)]) == 2
    assert "split=None; name one for msvd with --split: train, val, test" in capsys.readouterr().err
    assert main(["eval", "videomme", "--model", str(tiny)]) == 2
    assert "data=None; Video-MME must be given with --data" in capsys.readouterr().err
    for bad in ("0/2", "3/2", "1", "a/b"):
        with pytest.raises(SystemExit):
            main(["eval", "videomme", "--shard", bad])
    assert "allowed: 1/4" in capsys.readouterr().err


def test_moving_shapes_keys_stay_as_they_were(clips: Path) -> None:
    plain = {"benchmark": "moving-shapes", "data": str(clips), "clips": 1, "seed": 0, "limit": None}
    more = {"split": None, "subtitles": False, "protocol": "official", "shard": None, "frames": None}
    task = open_task(argparse.Namespace(**plain, **more, max_new_tokens=None))
    assert task.digest() == ""
    assert open_task(argparse.Namespace(**plain, **(more | {"frames": 4}), max_new_tokens=None)).digest()


def test_predictions_in_official_forms(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = benchmark("nextqa").load(folders["nextqa"], split="test")
    letters = {s.question_id: {"prediction": "ABCDE".index(s.answer), "answer": 9} for s in samples}
    letters.pop(samples[0].question_id)
    letters["1_1"] = {"prediction": 0, "answer": 0}
    path = tmp_path / "p.json"
    path.write_text(json.dumps(letters))
    argv = ["score", "nextqa", str(path), "--split", "test"]
    assert main(argv) == 2
    assert "comes without its answer; name the folder of NExT-QA with --data" in capsys.readouterr().err
    out = tmp_path / "scores.json"
    assert main([*argv, "--data", str(folders["nextqa"]), "--out", str(out)]) == 1
    shown = capsys.readouterr().out
    assert "NExT-QA test, protocol official" in shown
    assert "1 predictions are of other questions" in shown
    scores = json.loads(out.read_text())
    assert scores["headline"]["sum"] == 8
    assert (scores["headline"]["n"], scores["headline"]["value"]) == (9, pytest.approx(88.8889))
    path.write_text(json.dumps({"1_1": {"prediction": 0}}))
    assert main([*argv, "--data", str(folders["nextqa"])]) == 2
    assert "none of the 1 is of a question of the split; first: 1_1" in capsys.readouterr().err


def test_the_same_question_twice(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    line = json.dumps({"id": 1, "question": "what?", "answer": "a", "pred": "a"}) + "\n"
    path.write_text(line * 2)
    with pytest.raises(ValueError, match="question 1 has two predictions"):
        prediction_rows(benchmark("msvd"), [path], None)


def test_a_judge_on_this_machine(
    folders: dict[str, Path], tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from videoprune.eval.judge import messages

    judge = tmp_path / "judge"
    text = json.loads((tiny / "config.json").read_text())["text_config"]
    AutoModelForCausalLM.from_config(AutoConfig.for_model(**text)).save_pretrained(judge)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(judge)
    path = tmp_path / "p.jsonl"
    rows = [{"id": i, "question": "what?", "answer": "a", "pred": "b"} for i in range(2)]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    argv = ["score", "msvd", str(path), "--split", "val", "--json", "--judge", str(judge), "--device", "cpu"]
    assert main(argv) == 0
    found = json.loads(capsys.readouterr().out)["judge"]
    assert (found["model"], found["temperature"], found["questions"]) == (str(judge), 0.0, 2)
    assert found["unparsable"] == 2  # random weights say no dictionary
    cache = path.with_name("p.jsonl.judge.jsonl").read_text().splitlines()
    assert len(cache) == 1  # both questions are the same words
    from pipelines.local_judge import LocalJudge

    reply = LocalJudge(str(judge), device="cpu")(messages("what?", "a", "b"))
    assert reply.text == json.loads(cache[0])["reply"]
    assert main([*argv, "--judge-temperature", "1"]) == 2
    assert "--judge-temperature are for endpoints" in capsys.readouterr().err
    assert main(["score", "videomme", str(path), "--judge", str(judge)]) == 2
