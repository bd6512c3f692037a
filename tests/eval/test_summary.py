"""summary.json and tables against numbers worked out by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from videoprune.eval.metrics import clustered_interval
from videoprune.eval.summary import markdown_table, summarize


def record(number: int, correct: bool, **changes: Any) -> dict[str, Any]:
    return {
        "question_id": f"{number // 3}-{number % 3}",
        "video_id": str(number // 3),
        "category": "count" if number % 2 else "color",
        "duration": "short" if number < 4 else "long",
        "prediction": "A" if correct else "B",
        "answer": "A",
        "correct": correct,
        "outcome": "complete",
        "tokens": {
            "dense": 100 + number,
            "encoder": {"clip": [50, 20 + number], "siglip": [50 + number, 10]},
            "fused": 30,
            "llm_layers": [30, 20 + number],
            "llm_average": 25.0,
            "retention": 0.25,
        },
        "seconds": {"decode": 1.0, "encode": 2.0 + number},
    } | changes


LOST = {"prediction": "", "outcome": "failed", "tokens": {}, "seconds": {"decode": 3.0}}
RECORDS = [
    record(0, True),
    record(1, False),
    record(2, True),
    record(3, False, prediction=""),
    record(4, True, outcome="truncated"),
    record(5, False, **LOST),
]


def test_summary_by_hand() -> None:
    summary = summarize(RECORDS)
    figures = summary["accuracy"]
    assert figures["overall"] == pytest.approx(3 / 6)
    assert figures["answered"] == pytest.approx(3 / 4)
    interval = clustered_interval([1, 0, 1, 0, 1, 0], list("000111"))
    assert figures["overall_ci95"] == pytest.approx(list(interval), abs=1e-6)
    assert figures["by_category"] == {
        "color": {"accuracy": 1.0, "answered": 1.0, "n": 3, "n_answered": 3},
        "count": {"accuracy": 0.0, "answered": 0.0, "n": 3, "n_answered": 1},
    }
    assert figures["by_duration"]["short"] == {"accuracy": 0.5, "answered": 0.666667, "n": 4, "n_answered": 3}
    assert figures["by_duration"]["long"] == {"accuracy": 0.5, "answered": 1.0, "n": 2, "n_answered": 1}
    assert summary["counts"] == {
        "questions": 6,
        "answered": 4,
        "failed": 1,
        "parse_failures": 1,
        "outcomes": {"complete": 4, "failed": 1, "truncated": 1},
    }
    assert summary["tokens"] == {
        "measured": 5,
        "dense": 102.0,
        "encoder": {"clip": [50.0, 22.0], "siglip": [52.0, 10.0]},
        "fused": 30.0,
        "llm_layers": [30.0, 22.0],
        "llm_average": 25.0,
        "retention": 0.25,
    }
    assert summary["seconds"] == {"decode": pytest.approx(8 / 6, abs=1e-6), "encode": 4.0}
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_summary_without_tokens_or_records() -> None:
    bare = [{k: v for k, v in r.items() if k not in ("tokens", "seconds")} for r in RECORDS]
    assert summarize(bare)["tokens"] == {"measured": 0}
    assert summarize(bare)["seconds"] == {}
    empty = summarize([])
    assert empty["accuracy"] == {
        "overall": None,
        "overall_ci95": None,
        "answered": None,
        "by_category": {},
        "by_duration": {},
    }
    assert empty["counts"]["questions"] == 0
    json.dumps(empty, allow_nan=False)


def test_token_figures_must_fit_together() -> None:
    with pytest.raises(ValueError, match=r"tokens.llm_layers: lists of lengths \[1, 2\]"):
        summarize([record(0, True), record(1, True, tokens={"llm_layers": [3]})])
    with pytest.raises(ValueError, match=r"tokens.dense='many'; allowed: a number"):
        summarize([record(0, True, tokens={"dense": "many"})])


def test_markdown_table() -> None:
    rows: list[dict[str, Any]] = [
        {"name": "a|b\nc", "value": 0.12345},
        {"name": "d", "value": None, "extra": 1},
        {"value": 7},
    ]
    assert markdown_table(rows, ["name", "value"]) == (
        "| name | value |\n| --- | --- |\n| a\\|b c | 0.123 |\n| d |  |\n|  | 7 |\n"
    )
    assert markdown_table([], {"name": "Name"}) == "| Name |\n| --- |\n"
