"""Records of a run -> the numbers of summary.json, and Markdown tables of such numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from videoprune.eval.metrics import (
    Record,
    Score,
    accuracy,
    clustered_interval,
    is_answered,
    is_correct,
    is_failed,
    parse_failures,
)

_DIGITS = 6


def summarize(records: Sequence[Record]) -> dict[str, Any]:
    """What summary.json holds: accuracy, counts, mean tokens, mean seconds by stage. Plain numbers only.

    accuracy: fractions. `overall` and its interval (95 %, bootstrap by video) divide by all questions,
    `answered` by the answered ones; None where there are none. tokens: the mean of every figure in "tokens",
    lists element by element, over the `measured` records that have them. seconds: mean by stage, over the
    records that name the stage.
    Raises ValueError if a question_id appears twice, or token figures do not fit together.
    """
    measured = [r["tokens"] for r in records if r.get("tokens")]
    timed = [r["seconds"] for r in records if r.get("seconds")]
    return {
        "accuracy": _accuracy(records),
        "counts": {
            "questions": len(records),
            "answered": sum(map(is_answered, records)),
            "failed": sum(map(is_failed, records)),
            "parse_failures": len(parse_failures(records)),
            "outcomes": dict(sorted(Counter(r["outcome"] for r in records).items())),
        },
        "tokens": {"measured": len(measured), **_mean(measured, "tokens")} if measured else {"measured": 0},
        "seconds": _mean(timed, "seconds") if timed else {},
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


def _accuracy(records: Sequence[Record]) -> dict[str, Any]:
    scores = accuracy(records)
    interval = None
    if records:
        correct = [is_correct(r) for r in records]
        low, high = clustered_interval(correct, [r["video_id"] for r in records])
        interval = [round(low, _DIGITS), round(high, _DIGITS)]
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


def _mean(values: Sequence[Any], name: str) -> Any:
    """Mean of numbers, lists (element by element) or mappings (key by key, over those that have the key)."""
    first = values[0]
    if all(isinstance(v, Mapping) for v in values):
        keys = dict.fromkeys(key for v in values for key in v)
        return {key: _mean([v[key] for v in values if key in v], f"{name}.{key}") for key in keys}
    if all(isinstance(v, list | tuple) for v in values):
        lengths = {len(v) for v in values}
        if len(lengths) > 1:
            raise ValueError(f"{name}: lists of lengths {sorted(lengths)}; allowed: one length in a run")
        return [_mean([v[i] for v in values], f"{name}[{i}]") for i in range(len(first))]
    if not all(isinstance(v, int | float) for v in values):
        wrong = next(v for v in values if not isinstance(v, int | float))
        raise ValueError(f"{name}={wrong!r}; allowed: a number in every record")
    return round(sum(values) / len(values), _DIGITS)


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return " ".join(text.replace("|", "\\|").split())
