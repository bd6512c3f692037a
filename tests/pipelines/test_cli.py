"""Commands as a user gives them: outputs, status codes, and one sentence for a mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.cli import main
from pipelines.run.results import read_rows
from videoprune.types import STAGES

QUESTION = ["What color is it?", "--option", "red", "--option", "blue [dark]"]


def sentence(errors: str) -> str:
    """The one line of this program; libraries that are imported already may have shown progress before it."""
    assert "Traceback" not in errors
    *_, last = errors.splitlines()
    assert last.startswith("videoprune: ")
    assert errors.count("videoprune: ") == 1
    return last


@pytest.fixture
def video(clips: Path) -> str:
    return str(clips / "data" / "moving_shapes_001.mp4")


def test_help_needs_no_heavy_import() -> None:
    code = (
        "import sys; from pipelines.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'ray', 'av', 'numpy', 'rich'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for command in ("ask", "eval", "serve", "demo", "calibrate", "tables"):
        assert command in done.stdout


def test_ask_prints_one_json_object(tiny: Path, video: str, capsys: pytest.CaptureFixture[str]) -> None:
    changes = ["encoder.keep=0.4", "llm.lambda_=30", "seed=3"]
    status = main(["ask", video, *QUESTION, "--model", str(tiny), "--json", *changes])
    found = json.loads(capsys.readouterr().out)
    assert status == 0
    assert (found["prune"]["encoder"]["keep"], found["prune"]["seed"]) == (0.4, 3)
    assert found["choice"] in ("", "A", "B")
    assert found["outcome"] == {"kind": "complete", "reason": "", "last_pts": None, "errors": 0}
    assert found["backend"] == "decord"
    assert found["pts_seconds"] == [0.5, 1.5, 2.5, 3.5]
    assert found["tokens"]["dense"] == 164
    assert found["tokens"]["fused"] == sum(out for _, out in found["tokens"]["encoder"].values()) // 2
    stages = found["seconds"]
    assert list(stages) == [*STAGES, "total"]
    assert stages["total"] >= sum(v for k, v in stages.items() if k != "total") - 1e-3


def test_ask_shows_answer_and_stages(tiny: Path, video: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--backend", "pyav", "--policy", "timestamps", "--timestamps", "0,1.3", "--prune", "none"]
    assert main(["ask", video, *QUESTION, "--model", str(tiny), *words]) == 0
    shown = capsys.readouterr().out
    for text in ("decode (pyav)", "2 frames, 0.00 to 1.25 s", "32 -> 32", "82 x 8", "100.0 %"):
        assert text in shown


def test_a_video_without_frames_gives_status_1(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"no video")
    assert main(["ask", str(path), *QUESTION, "--model", str(tiny), "--json"]) == 1
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert (found["answer"], found["outcome"]["kind"]) == (None, "failed")
    assert found["outcome"]["reason"].startswith("not_a_video: ")
    assert "broken.mp4" in sentence(said.err)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "TINY", "llm.lamda_=3"], "llm.lamda_: unknown key"),
        (
            ["--model", "TINY", "--prune", "fast"],
            "prune='fast'; allowed: aggressive, aggressive-serve, aim, balanced",
        ),
        (["--model", "TINY", "llm.keep=0.123"], "not calibrated"),
        (["--model", "TINY", "--option", "only one"], "options"),
        (["--model", "TINY", "--policy", "fps"], "fps=None"),
        (["--model", "nowhere"], "model='nowhere'"),
    ],
)
def test_a_mistake_gives_one_sentence_and_status_2(
    words: list[str], said: str, tiny: Path, video: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(tiny) if word == "TINY" else word for word in words]
    assert main(["ask", video, "What?", *given]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert said in sentence(shown.err)


@pytest.mark.parametrize("command", [["ask", "VIDEO", "What?"], ["show", "VIDEO"]])
@pytest.mark.parametrize(
    ("video", "said"),
    [
        ("missing.mp4", "video='missing.mp4': no such file"),
        ("https://a.b/c.mp4", "video='https://a.b/c.mp4': URLs are not read; download the file first"),
        ("rtsp://a/b", "video='rtsp://a/b': URLs are not read; download the file first"),
    ],
)
def test_a_missing_file_is_told_before_anything_heavy_is_imported(
    command: list[str], video: str, said: str
) -> None:
    words = [video if word == "VIDEO" else word for word in command]
    code = (
        f"import sys; from pipelines.cli import main; status = main({words!r})\n"
        "heavy = {'torch', 'transformers', 'ray', 'av', 'rich'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else status)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (2, f"videoprune: {said}\n")


@pytest.mark.parametrize("words", [["-ab.mp4", "What?"], ["-ab.mp4", "clip.mp4", "What?"]])
def test_a_file_that_begins_with_a_dash_gets_a_hint(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["ask", *words])
    assert caught.value.code == 2
    said = "a file that begins with a dash: write ./-ab.mp4, or put -- before it"
    assert capsys.readouterr().err.endswith(f"{said}\n")
    assert main(["ask", "--", "-ab.mp4", "What?"]) == 2  # it is read as a file
    assert "video='-ab.mp4': no such file" in capsys.readouterr().err


def test_no_hint_for_a_mistyped_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["ask", "v", "q", "--fast", "llm.keep=0.4"])
    assert "begins with a dash" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["ask", "v", "q", "word"], ["ask", "v", "q", "--fast=1"], ["demo", "a.b=1"], []]
)
def test_words_that_mean_nothing_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_eval_writes_rows_and_scores(
    tiny: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = [
        "eval",
        "moving-shapes",
        "--model",
        str(tiny),
        "--data",
        str(clips),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main([*common, "--limit", "4", "--prune", "evoprune", "encoder.keep=0.5"]) == 0
    assert "4" in capsys.readouterr().out
    rows = read_rows(tmp_path / "out" / "results.jsonl")
    assert list(rows) == ["001-1", "001-2", "001-3", "002-1"]
    assert all(row["tokens"]["fused"] == 80 for row in rows.values())
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["counts"]["questions"] == 4
    assert main([*common, "--prune", "none"]) == 2
    assert "--restart" in capsys.readouterr().err


def test_eval_tells_of_lost_videos_by_its_status(
    tiny: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "bench"
    data.mkdir()
    (data / "test.jsonl").write_text((clips / "test.jsonl").read_text())
    words = ["--model", str(tiny), "--data", str(data), "--out", str(tmp_path / "out"), "--limit", "1"]
    assert main(["eval", "moving-shapes", *words]) == 1
    said = capsys.readouterr().err
    assert "1 of 1 questions failed" in said
    assert said.index("1 of 1 videos are missing, their questions will fail; first: ") < said.index("failed;")


def test_demo_shows_every_clip_with_every_setting(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--clips", "2", "--out", str(tmp_path / "clips"), "--prune", "evoprune"]
    assert main(["demo", "--model", str(tiny), *words]) == 0
    shown = capsys.readouterr().out
    assert "164 → 164 → 164 → 164" in shown
    assert "164 → 40 → 40 → 40" in shown
    assert shown.count("of 2") == 2
