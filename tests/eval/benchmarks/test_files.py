"""CSVs and JSON lines as people keep them: encodings, long cells, "1.0", U+2028, half a surrogate pair."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.cli import main
from pipelines.run.predictions import prediction_rows
from pipelines.run.results import Results, read_rows, row_key, write_whole
from pipelines.run.tasks import write_submission
from tests.eval.benchmarks import made
from videoprune.eval.benchmarks.folder import read_csv, read_json_lines
from videoprune.eval.benchmarks.moving_shapes.load import load as load_shapes
from videoprune.eval.benchmarks.registry import benchmark
from videoprune.eval.judge import Reply, ReplyCache, messages
from videoprune.prompts import prompt, whole_characters
from videoprune.types import UNUSABLE, Sample

BREAKS = "one\u2028two\u2029three\x85four\x0b\x0cfive\x1c\x1d\x1esix"
HALF = "half \ud83d of it"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_csv_in_any_encoding(encoding: str, ending: str, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    text = 'video,question\n1,"más señal, here"\n2,"two\nlines"\n'.replace("\n", ending)
    path.write_bytes(text.encode(encoding))
    assert read_csv(path, ("video",)) == [
        {"video": "1", "question": "más señal, here"},
        {"video": "2", "question": f"two{ending}lines"},
    ]


def test_long_cells_leave_the_limit_of_the_process(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    path = tmp_path / "x.csv"
    path.write_text(f"a,b\n{'w' * 200_000},1\n")
    assert [len(row["a"]) for row in read_csv(path, ("a",))] == [200_000]
    with pytest.raises(ValueError, match="no column c"):
        read_csv(path, ("c",))
    assert csv.field_size_limit() == before


def test_numbers_as_pandas_writes_them(tmp_path: Path) -> None:
    rows = [r | {"answer": f"{r['answer']}.0", "qid": f"{r['qid']}.0"} for r in made.nextqa_rows(9)]
    plain = benchmark("nextqa").load(made.write_nextqa(tmp_path / "a", made.nextqa_rows(9)), split="test")
    found = benchmark("nextqa").load(made.write_nextqa(tmp_path / "b", rows), split="test")
    assert [(s.question_id, s.answer) for s in found] == [(s.question_id, s.answer) for s in plain]
    rows[0]["answer"] = "1.5"
    broken = benchmark("nextqa").load(made.write_nextqa(tmp_path / "c", rows), split="test")[0]
    assert broken.meta[UNUSABLE] == "bad row: test.csv, row 1: answer='1.5'; allowed: 0 to 4"
    rows = [r | {"video": f"{r['video']}.0", "qid": f"{r['qid']}.0"} for r in made.nextoe_rows(9)]
    oe = benchmark("nextoe").load(made.write_nextoe(tmp_path / "d", rows), split="test")
    assert [s.question_id for s in oe] == [f"2400000000_{i}" for i in range(9)]
    texts = benchmark("nextqa").predictions({"1_0": {"prediction": 2.0}, "1_1": "3.0", "1_2": 4})
    assert [row["text"] for row in texts] == ["C", "D", "E"]


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=20), min_size=1, max_size=5))
def test_only_line_feeds_end_a_line(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("lines") / "x.jsonl"
    for ending in ("\n", "\r\n"):
        path.write_bytes("".join(json.dumps([t], ensure_ascii=False) + ending for t in texts).encode())
        assert read_json_lines(path) == [[text] for text in texts]


def test_odd_line_breaks_in_texts_of_benchmarks(tmp_path: Path) -> None:
    rows = [r | {"question": BREAKS} for r in made.videomme_rows(1)]
    lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
    (tmp_path / "test.jsonl").write_bytes(lines.encode())
    assert {s.question for s in benchmark("videomme").load(tmp_path, split="test")} == {BREAKS}
    shapes = [r | {"options": ["A. a\u2028b", "B. c", "C. d", "D. e"]} for r in rows]
    (tmp_path / "test.jsonl").write_bytes(
        b"\xef\xbb\xbf" + "".join(json.dumps(r, ensure_ascii=False) + "\r\n" for r in shapes).encode()
    )
    found = load_shapes(tmp_path)
    assert {(s.question, s.options[0]) for s in found} == {(BREAKS, "a\u2028b")}


def test_results_hold_every_text(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    rows = [
        {"question_id": name, "text": name, "outcome": "complete"}
        for name in ("1", BREAKS, HALF, "\udc00\ud83d")
    ]
    with Results(path) as results:
        results.append(rows)
    assert list(read_rows(path).values()) == rows
    with Results(path) as results:
        assert list(results.index) == [row["question_id"] for row in rows]
    assert list(read_rows(path).values()) == rows
    assert path.read_bytes().decode("utf-8").count("\n") == len(rows)
    found, _ = prediction_rows(benchmark("msvd"), [path], [Sample(r["question_id"], "v", "?") for r in rows])
    assert [row["text"] for row in found] == [row["text"] for row in rows]


def test_half_a_surrogate_pair_ends_no_run(tmp_path: Path) -> None:
    assert row_key(HALF, "v", "m", "d") != row_key("half  of it", "v", "m", "d")
    write_submission({"x.jsonl": [{"pred": HALF}], "y.json": {"pred": HALF}}, tmp_path)
    assert read_json_lines(tmp_path / "x.jsonl") == [{"pred": HALF}]
    assert json.loads((tmp_path / "y.json").read_text()) == {"pred": HALF}
    write_whole(tmp_path / "z.md", HALF)
    assert (tmp_path / "z.md").read_text() == "half \\ud83d of it"
    cache = ReplyCache(tmp_path / "judge.jsonl")
    cache.put("key", Reply(HALF + BREAKS, "m"))
    assert ReplyCache(tmp_path / "judge.jsonl").get("key") == Reply(HALF + BREAKS, "m")
    said = messages(HALF, HALF, "\ud83d\ude00")[1]["content"]
    assert "half \ufffd of it" in said
    assert "😀" in said


def test_half_a_surrogate_pair_in_a_benchmark(tmp_path: Path) -> None:
    rows = [
        r | {"question": HALF, "options": [f"{c}. {HALF}" for c in "ABCD"]} for r in made.videomme_rows(1)
    ]
    sample = benchmark("videomme").load(made.write_videomme(tmp_path, rows), split="test")[0]
    assert sample.question == HALF
    assert prompt(sample).count("half \ufffd of it") == 5
    assert (
        prompt(Sample("1", "v", HALF, (HALF, "b")))
        == "half \ufffd of it\nA. half \ufffd of it\nB. b\nAnswer:"
    )
    made.write_json(tmp_path / "test_qa.json", [r | {"answer": HALF} for r in made.msvd_rows(2)])
    assert benchmark("msvd").load(tmp_path, split="test")[0].answer == HALF


@given(st.text())
def test_whole_characters_can_be_written(text: str) -> None:
    found = whole_characters(text)
    assert found.encode().decode() == found
    assert found == text or any("\ud800" <= char <= "\udfff" for char in text)


def test_files_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_bytes(b"\xff\0\0\xfe")
    with pytest.raises(ValueError, match=r"test\.csv: no text"):
        benchmark("nextqa").load(tmp_path, split="test")
    (tmp_path / "pred.jsonl").write_bytes(b"\x80\0")
    with pytest.raises(ValueError, match=r"pred\.jsonl: no text"):
        prediction_rows(benchmark("msvd"), [tmp_path / "pred.jsonl"], [])


def test_predictions_with_a_mark_in_front(tmp_path: Path) -> None:
    row = {"question_id": "1", "outcome": "complete", "text": "cat"}
    (tmp_path / "results.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(row).encode() + b"\n")
    found, _ = prediction_rows(benchmark("msvd"), [tmp_path / "results.jsonl"], [Sample("1", "v", "?")])
    assert found[0]["text"] == "cat"


@pytest.mark.parametrize("form", ["table", "json"])
def test_scores_are_printed_whatever_their_groups_are_called(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"question_id": "1", "outcome": "complete", "text": "cat", "answer": "cat", "question": HALF}
    path = tmp_path / "results.jsonl"
    with Results(path) as results:
        results.append([row | {"category": "a\ud83d", "video_id": "v", "reason": ""}])
    assert main(["score", "msvd", str(path), "--split", "test", *(["--json"] if form == "json" else [])]) == 0
    assert "a\\ud83d" in capsys.readouterr().out
