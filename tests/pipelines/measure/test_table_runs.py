from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from pipelines.cli import main
from pipelines.measure import table_runs
from pipelines.measure.table_rows import TABLES, TableRow, TableSpec
from pipelines.measure.table_runs import row_cells, row_config, write_tables
from videoprune.config import PruneConfig, preset
from videoprune.eval.summary import summarize

NAMES = [(name, row) for name, spec in TABLES.items() for row in spec.rows]


@pytest.mark.parametrize(("name", "row"), NAMES, ids=[f"{n}: {r.name}" for n, r in NAMES])
def test_every_row_has_settings_of_its_own(name: str, row: TableRow) -> None:
    """Rows build from those before them, and no two rows of a table are the same."""
    settings: dict[str, PruneConfig] = {}
    for other in TABLES[name].rows:
        shares = {n: 0.9 - 0.01 * i for i, n in enumerate(settings)}
        settings[other.name] = row_config(other, settings, shares)
    assert len(settings) == len(TABLES[name].rows)
    alike = [n for n, prune in settings.items() if prune == settings[row.name]]
    assert alike == [row.name]


def test_controls_replace_methods_and_take_the_measured_share() -> None:
    base = preset("balanced").replace(**{"llm.lambda_": 12.0})
    settings, shares = {"balanced": base}, {"balanced": 0.61237}
    random = row_config(TableRow("control", like="balanced"), settings, shares)
    methods = {"encoder.method": "random", "fusion.method": "random", "llm.method": "random"}
    assert random == base.replace(**methods, **{"llm.keep": 0.6124, "llm.lambda_": None})
    fixed = row_config(TableRow("control", like="balanced", control="fixed"), settings, shares)
    assert fixed == base.replace(**{"llm.method": "fixed", "llm.keep": 0.6124, "llm.lambda_": None})
    alone = row_config(TableRow("control", like="evo"), {"evo": preset("evoprune")}, {"evo": 1.0})
    assert alone == preset("evoprune").replace(**{"encoder.method": "random"})
    with pytest.raises(ValueError, match="meteor was not measured"):
        row_config(TableRow("control", like="meteor"), settings, shares)


def test_cells_by_hand() -> None:
    def record(number: int, correct: bool) -> dict:
        return {
            "question_id": str(number),
            "video_id": str(number // 2),
            "category": "color" if number % 2 else "count",
            "duration": "short",
            "prediction": "A",
            "answer": "A" if correct else "B",
            "correct": correct,
            "outcome": "complete",
            "tokens": {
                "dense": 100,
                "encoder": {"a": [60, 30], "b": [40, 20]},
                "fused": 40,
                "llm_layers": [40, 10],
                "llm_average": 25.0,
                "retention": 0.25,
            },
            "seconds": {
                "decode": 9.0,
                "preprocess": 0.001,
                "encode": 0.01 * number,
                "encode_prune": 0.002,
                "fuse": 0.001,
                "llm": 0.02,
                "llm_prune": 0.003,
            },
        }

    rows = [record(i, i != 0) for i in range(4)]
    dense = [record(i, True) for i in range(4)]
    cells = row_cells("pruned", summarize(rows), rows, dense)
    assert cells["accuracy"].startswith("75.0 (50.0 to 100.0)")
    assert cells["difference"].startswith("-25.0 (-50.0 to +0.0)")
    assert (cells["color"], cells["count"]) == ("100", "50")
    assert (cells["encoders"], cells["fused"], cells["average"], cells["retention"]) == (
        "50",
        "40",
        "25.0",
        "25.0",
    )
    assert (cells["encode"], cells["llm"]) == ("19", "23")
    assert row_cells("unpruned", summarize(dense), dense, dense)["difference"] == ""


def test_the_command_measures_keeps_and_writes(
    tiny: Path,
    clips: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec = TableSpec(
        "Few rows",
        "Only some.",
        (
            TableRow("adaptive", changes={"llm.method": "adaptive", "llm.keep": 0.5}, solve=True),
            TableRow("random", like="adaptive", control="random_llm"),
            TableRow("too far", "evoprune", {"encoder.keep": 0.02}),
        ),
    )
    monkeypatch.setitem(TABLES, "llm", spec)
    monkeypatch.setattr(table_runs, "CALIBRATION_CLIPS", 3)
    words = ["tables", "--model", str(tiny), "--data", str(clips), "--limit", "4", "--only", "llm"]
    words += ["--out", str(tmp_path / "docs"), "--runs", str(tmp_path / "runs")]
    assert main(words) == 0
    page = (tmp_path / "docs" / "tables.md").read_text()
    assert page.startswith("# Tables")
    assert "## llm: Few rows" in page
    told = [
        "videoprune",
        "tables",
        "--model",
        str(tiny),
        "--only",
        "llm",
        "--data",
        str(clips),
        "--limit",
        "4",
    ]
    assert f"`{shlex.join(told)}`, on " in page
    lines = {
        line.split("|")[1].strip(): line.split("|") for line in page.splitlines() if line.startswith("| ")
    }
    assert {"unpruned", "adaptive", "random"} < set(lines)
    assert any(name.startswith("too far: not possible with this model: ") for name in lines)
    kept = {
        name: float(cells[-4]) for name, cells in lines.items() if name in ("unpruned", "adaptive", "random")
    }
    assert kept["unpruned"] == 100.0
    assert 35 < kept["adaptive"] < 65
    assert kept["random"] == pytest.approx(kept["adaptive"], abs=1.0)
    runs = sorted((tmp_path / "runs").glob("*/*/results.jsonl"))
    before = {run: run.read_bytes() for run in runs}
    assert len(runs) == 3
    assert main(words) == 0  # nothing is asked again
    assert {run: run.read_bytes() for run in runs} == before
    assert main([*words, "--only", "speed"]) == 2
    assert "only='speed'; allowed: presets" in capsys.readouterr().err


def test_a_page_keeps_the_tables_that_were_not_taken_again(tmp_path: Path) -> None:
    runs, page = tmp_path / "runs", tmp_path / "tables.md"
    runs.mkdir()
    (runs / "presets.qwen2.5.standard.md").write_text("`a`\n\n| one |\n")
    (runs / "fusion.demo.hard.md").write_text("`b`\n\n| two |\n")
    write_tables(runs, page)
    whole = page.read_text()
    other = tmp_path / "other"
    other.mkdir()
    write_tables(other, page)
    assert page.read_text() == whole
    (other / "presets.qwen2.5.standard.md").write_text("`c`\n\n| three |\n")
    (other / "presets.demo.standard.md").write_text("`d`\n\n| four |\n")
    write_tables(other, page)
    text = page.read_text()
    assert [w for w in ("one", "two", "three", "four") if f"| {w} |" in text] == ["two", "three", "four"]
    assert text.index("### presets: demo") < text.index("### presets: qwen2.5") < text.index("## fusion: ")
    assert text.count("## presets: ") - text.count("### presets: ") == 1
