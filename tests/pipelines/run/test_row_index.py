"""What a run knows of its rows against a dict that holds them."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.run.results import Results
from pipelines.run.row_index import RowIndex
from pipelines.run.rows import failed_rows
from pipelines.run.stages import ClipItem, Failure
from videoprune.types import Sample

ROWS = st.fixed_dictionaries(
    {
        "question_id": st.sampled_from("abc"),
        "outcome": st.sampled_from(["complete", "failed"]),
        "reason": st.sampled_from(["", "broken", "late"]),
        "key": st.sampled_from(["k1", "k2"]),
    }
)


def same_failure(row: dict[str, Any], before: dict[str, Any] | None) -> bool:
    parts = ("outcome", "reason", "key")
    return row["outcome"] == "failed" and before is not None and all(row[p] == before[p] for p in parts)


@given(st.lists(ROWS))
def test_the_last_row_of_a_question_counts(rows: list[dict[str, Any]]) -> None:
    index, held, starts = RowIndex(), dict[str, dict[str, Any]](), dict[str, int]()
    for start, row in enumerate(rows):
        question = row["question_id"]
        assert index.failed_so(row) == same_failure(row, held.get(question))
        index.put(row, start)
        held[question], starts[question] = row, start
    assert list(index) == list(held)
    assert len(index) == len(held)
    for question in "abc":
        row = held.get(question, {"outcome": "failed"})
        assert index.answered(question) == (row["outcome"] != "failed")
        assert (question in index) == (question in held)
    for question, row in held.items():
        assert index.start(question) == starts[question]
        assert [index.made_from(question, k) for k in ("k1", "k2")] == [row["key"] == k for k in ("k1", "k2")]


def whole_rows(count: int, text: str = "") -> list[dict[str, Any]]:
    samples = tuple(Sample(f"{i}", "v.mp4", f"{text}{i}?") for i in range(count))
    return [dict(row) for row in failed_rows(ClipItem("v.mp4", samples), Failure("broken", "broken"))]


def test_stored_rows_are_a_sequence(tmp_path: Path) -> None:
    rows = whole_rows(5)
    with Results(tmp_path / "results.jsonl") as results:
        results.append(rows)
        results.append([rows[1] | {"text": "again"}])
        stored = results.rows(["3", "1", "0"])
    expected = [rows[3], rows[1] | {"text": "again"}, rows[0]]
    assert list(stored) == list(stored) == expected
    assert [stored[i] for i in (0, 1, -1)] == expected
    assert list(stored[1:]) == expected[1:]
    assert len(stored) == 3
    with pytest.raises(IndexError):
        stored[3]


def test_rows_stay_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in whole_rows(20, "x" * 2**20)))
    tracemalloc.start()
    try:
        with Results(path) as results:
            assert tracemalloc.get_traced_memory()[0] < 2**20
            lengths = [len(row["question"]) for row in results.rows(list(results.index))]
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()
    assert lengths == [2**20 + len(f"{i}?") for i in range(20)]
