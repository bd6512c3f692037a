"""One question of a run, as results.jsonl holds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict, cast

from videoprune.types import Outcome, OutcomeKind


class ResultRow(TypedDict):
    """One question of a run: a line of results.jsonl.

    prediction: the letter read from `text`, or what a benchmark's protocol reads there; "": none. outcome: as `Outcome`
    has it; of a failed row `kind` says what failed (a video's reason, an exception's type), `reason` is a sentence and
    `traceback` that of the exception, "" where there was none. tokens: `Trace.as_dict`, None for a failed row. seconds:
    by stage, of shared work the question's share. key: what the row was made from; meta: what scores need beyond.
    """

    question_id: str
    video_id: str
    category: str
    duration: str
    question: str
    answer: str
    prediction: str
    text: str
    correct: bool
    outcome: OutcomeKind
    kind: str
    reason: str
    traceback: str
    backend: str
    fallback_reason: str
    tokens: dict[str, Any] | None
    seconds: dict[str, float]
    meta: NotRequired[dict[str, Any]]
    key: NotRequired[str]


_ROW_TYPES: dict[str, Any] = {"correct": bool, "tokens": dict | None, "seconds": dict, "meta": dict}
_LATER_FIELDS = {"kind": "", "traceback": ""}  # rows of older runs lack them


def result_row(data: Mapping[str, Any]) -> ResultRow:
    """`data`, made here or read from a file, as a checked row. Raises ValueError that names question and field."""
    row = {**_LATER_FIELDS, **data}
    name = f"row of question {row.get('question_id')!r}"
    known = ResultRow.__annotations__.keys()
    if lost := sorted(known - row.keys() - {"meta", "key"}):
        raise ValueError(f"{name}: without {', '.join(lost)}; allowed: rows with all of {', '.join(known)}")
    for key in known & row.keys():
        if not isinstance(row[key], _ROW_TYPES.get(key, str)):
            raise ValueError(f"{name}: {key}={row[key]!r}; allowed: {_ROW_TYPES.get(key, str)}")
    Outcome(row["outcome"], row["reason"])  # allowed kinds; a failure must say why
    return cast(ResultRow, row)
