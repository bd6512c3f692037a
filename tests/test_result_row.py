"""The record of one question: what it must hold, and rows of older runs."""

from __future__ import annotations

from typing import Any

import pytest

from videoprune.result_row import result_row


def row(**changes: Any) -> dict[str, Any]:
    text = dict.fromkeys(
        ("category", "duration", "prediction", "text", "reason", "backend", "fallback_reason"), ""
    )
    asked = {"question_id": "1-1", "video_id": "1", "question": "What?", "answer": "A"}
    return {**text, **asked, "correct": False, "outcome": "complete", "tokens": None, "seconds": {}} | changes


def test_a_row_of_an_older_run_gets_the_fields_that_it_lacks() -> None:
    found = result_row(row(key="abc", meta={"source": "here"}))
    assert found == {**row(key="abc", meta={"source": "here"}), "kind": "", "traceback": ""}
    assert result_row(found) == found


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"outcome": "done"}, "kind='done'; allowed: complete, truncated, failed"),
        ({"outcome": "failed"}, "a failed outcome must say why"),
        ({"correct": "yes"}, "row of question '1-1': correct='yes'"),
        ({"tokens": 3}, "row of question '1-1': tokens=3"),
        ({"text": None}, "row of question '1-1': text=None"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        result_row(row(**changes))


def test_what_is_missing_is_named() -> None:
    short = row()
    del short["seconds"], short["answer"]
    with pytest.raises(ValueError, match="row of question '1-1': without answer, seconds; allowed"):
        result_row(short)
