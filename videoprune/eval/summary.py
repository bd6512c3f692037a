"""Records of a run -> the numbers of summary.json, and Markdown tables of such numbers."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from videoprune.eval.mean import Mean
from videoprune.eval.metrics import Accuracy, Record, Score, Tally, clustered_interval, is_correct

_DIGITS = 6


def summarize(records: Iterable[Record]) -> dict[str, Any]:
    """What summary.json holds: accuracy, counts, mean tokens, mean seconds by stage. Plain numbers only. Records are
    read once, one by one.

    accuracy: fractions. `overall` and its interval (95 %, bootstrap by video) divide by all questions,
    `answered` by the answered ones; None where there are none. tokens: the mean of every figure in "tokens",
    lists element by element, over the `measured` records that have them. seconds: mean by stage, over the
    records that name the stage.
    Raises ValueError if a question_id appears twice, or token figures do not fit together.
    """
    tally, tokens, seconds = Tally(), Mean("tokens"), Mean("seconds")
    correct, videos = bytearray(), list[str]()
    for record in records:
        tally.add(record)
        correct.append(is_correct(record))
        videos.append(sys.intern(record["video_id"]))  # one text for all questions of a video
        if record.get("tokens"):
            tokens.add(record["tokens"])
        if record.get("seconds"):
            seconds.add(record["seconds"])
    scores = tally.accuracy()
    overall, failed = scores.overall, tally.outcomes["failed"]
    measured = {"measured": tokens.count}
    return {
        "accuracy": _accuracy(scores, _interval(correct, videos)),
        "counts": {
            "questions": overall.questions,
            "answered": overall.answered,
            "failed": failed,
            "parse_failures": overall.questions - failed - overall.answered,
            "outcomes": dict(sorted((k, n) for k, n in tally.outcomes.items() if n)),
        },
        "tokens": measured | tokens.value() if tokens.count else measured,
        "seconds": seconds.value() if seconds.count else {},
    }


def markdown_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | Mapping[str, str]) -> str:
    """A Markdown table, a line per row. `columns`: keys in order, or keys with their headings.

    A missing or None cell stays empty. Floats show three significant digits; to choose, format them first.
    """
    headings = columns if isinstance(columns, Mapping) else {name: name for name in columns}
    lines = [
        [_cell(h) for h in headings.values()],
        ["---"] * len(headings),
        *([_cell(row.get(name)) for name in headings] for row in rows),
    ]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _interval(correct: bytearray, videos: Sequence[str]) -> list[float] | None:
    if not correct:
        return None
    low, high = clustered_interval(np.frombuffer(correct, np.uint8), videos)
    return [round(low, _DIGITS), round(high, _DIGITS)]


def _accuracy(scores: Accuracy, interval: list[float] | None) -> dict[str, Any]:
    return {
        "overall": _round(scores.overall.of_all),
        "overall_ci95": interval,
        "answered": _round(scores.overall.of_answered),
        "by_category": {name: _group(score) for name, score in scores.by_category.items()},
        "by_duration": {name: _group(score) for name, score in scores.by_duration.items()},
    }


def _group(score: Score) -> dict[str, Any]:
    return {
        "accuracy": _round(score.of_all),
        "answered": _round(score.of_answered),
        "n": score.questions,
        "n_answered": score.answered,
    }


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return " ".join(text.replace("|", "\\|").split())
