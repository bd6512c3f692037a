from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.run.results import Results, model_fingerprint, read_rows, row_key, video_fingerprint

ROWS = [{"question_id": f"{i}", "text": "ünïcode\nline \u2028 sep", "n": i} for i in range(4)]


def test_rows_come_back_and_the_last_of_a_question_counts(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "results.jsonl"
    with Results(path) as results:
        results.append(ROWS[:2])
        results.append([])
        results.append([{**ROWS[0], "n": 9}])
    assert len(path.read_bytes().splitlines()) == 3  # nothing is ever rewritten
    with Results(path) as results:
        assert list(results.index) == ["0", "1"]
    assert read_rows(path) == {"0": {**ROWS[0], "n": 9}, "1": ROWS[1]}


@settings(max_examples=25)
@given(data=st.data())
def test_a_file_cut_anywhere_keeps_its_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("cut") / "results.jsonl"
    with Results(path) as results:
        results.append(ROWS)
    whole = path.read_bytes()
    length = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:length])
    kept = whole[:length].count(b"\n")
    with Results(path) as results:
        assert list(results.index) == [row["question_id"] for row in ROWS[:kept]]
        assert list(read_rows(path).values()) == ROWS[:kept]
        results.append(ROWS[kept:])
    assert path.read_bytes() == whole


def test_a_last_line_of_zeros_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(json.dumps(ROWS[0]).encode() + b"\n" + b"\0" * 20 + b"\n")
    with Results(path) as results:
        assert list(results.index) == ["0"]
    assert path.read_bytes().count(b"\n") == 1


def test_a_broken_line_in_the_middle_is_not_skipped_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text('{"question_id": "1"}\nnonsense\n{"question_id": "2"}\n')
    before = path.read_bytes()
    with pytest.raises(ValueError, match="line 2"):
        Results(path)
    assert path.read_bytes() == before


def test_two_runs_cannot_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with Results(path) as results:
        results.append(ROWS[:1])
        with pytest.raises(ValueError, match="another run"):
            Results(path, restart=True)
    with Results(path) as results:
        assert list(results.index) == ["0"]


def test_restart_empties_the_file(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with Results(path) as results:
        results.append(ROWS)
    with Results(path, restart=True) as results:
        assert not len(results.index)
        results.append(ROWS[:1])
    assert read_rows(path) == {"0": ROWS[0]}


def test_a_key_depends_on_all_of_its_parts() -> None:
    parts = ["1-1", "100-5", "abc", "def"]
    keys = {row_key(*parts)}
    for i in range(4):
        keys.add(row_key(*(p + ("x" if i == j else "") for j, p in enumerate(parts))))
    assert len(keys) == 5


def test_a_changed_or_missing_video_has_another_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    assert video_fingerprint(str(path)) == "missing"
    path.write_bytes(b"abc")
    first = video_fingerprint(str(path))
    os.utime(path, ns=(1, 1))
    second = video_fingerprint(str(path))
    path.write_bytes(b"abcd")
    assert len({"missing", first, second, video_fingerprint(str(path))}) == 4


def test_a_models_fingerprint_is_its_content_not_its_place(tiny: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny, copy)
    assert model_fingerprint(str(copy)) == model_fingerprint(str(tiny))
    (copy / "README.md").write_text("words")
    assert model_fingerprint(str(copy)) == model_fingerprint(str(tiny))
    config = copy / "config.json"
    config.write_text(config.read_text().replace('"num_frames": 4', '"num_frames": 5'))
    assert model_fingerprint(str(copy)) != model_fingerprint(str(tiny))
