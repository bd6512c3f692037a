"""Scores of a benchmark as plain numbers: metric -> group -> percent, over how many questions.

A score never travels alone: benchmark, split and protocol are in the same record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from videoprune.eval.metrics import clustered_interval

Row = Mapping[str, Any]
Figures = dict[str, dict[str, Any]]
Counts = list[float | None]  # 0 to 1 for each question; None where it leaves the denominator
ALL = "all"
_DIGITS = 4


@dataclass(frozen=True)
class Scores:
    """What `score` of a benchmark returns.

    metrics: by name of the metric, by group: `value` (percent, None where there is nothing to divide by), `n`,
    what it divides by, and `sum`, what is divided. headline: the metric that papers compare. notes: sentences
    on what differs from a clean, complete run, such as questions without an answer.
    """

    benchmark: str
    split: str
    protocol: str
    headline: str
    metrics: dict[str, Figures]
    questions: int
    expected: int | None
    notes: tuple[str, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {
            "benchmark": self.benchmark,
            "split": self.split,
            "protocol": self.protocol,
            "headline": {"metric": self.headline, **self.metrics[self.headline].get(ALL, {})},
            "metrics": self.metrics,
            "questions": self.questions,
            "expected": self.expected,
            "complete": self.expected is None or self.questions == self.expected,
            "notes": list(self.notes),
            **self.more,
        }


def figures(
    values: Sequence[float],
    groups: Sequence[Sequence[str]],
    *,
    clusters: Sequence[str] | None = None,
    order: Sequence[str] = (),
) -> Figures:
    """Percent of the sum of `values` over their number, over all and by group; a value may be in several groups.

    order: groups that come first, in this order, those without a value included. clusters: the video of each
    value; with them, the group of all has a 95 % interval by bootstrap over videos.
    """
    sums: dict[str, float] = dict.fromkeys((ALL, *order), 0.0)
    counts: Counter[str] = Counter()
    for value, names in zip(values, groups, strict=True):
        for name in (ALL, *names):
            sums[name] = sums.get(name, 0.0) + value
            counts[name] += 1
    found = {name: figure(total, counts[name]) for name, total in sums.items()}
    if clusters and len(values):
        low, high = clustered_interval(list(values), list(clusters))
        found[ALL]["ci95"] = [round(100 * low, _DIGITS), round(100 * high, _DIGITS)]
    return found


def of_all(counted: Counts) -> list[float]:
    """The counts of a metric that divides by all questions."""
    assert None not in counted
    return [value for value in counted if value is not None]


def figure(total: float, count: int) -> dict[str, Any]:
    return {"value": round(100 * total / count, _DIGITS) if count else None, "n": count, "sum": _plain(total)}


def answer_notes(rows: Sequence[Row], expected: int | None) -> list[str]:
    """Sentences on questions without an answer, by reason, and on questions that are not in the file at all."""
    notes = []
    if expected is not None and len(rows) != expected:
        notes.append(f"{len(rows)} of the {expected} questions of the split: not comparable with a full run")
    failed = Counter(str(r.get("reason", "")).split(":")[0] or "failed" for r in rows if _failed(r))
    notes += [f"{n} without an answer ({reason})" for reason, n in failed.items()]
    return notes


def questions_of(rows: Sequence[Row]) -> list[Row]:
    """Rows without those that stand for a broken row of the benchmark's file: they are no questions."""
    return [row for row in rows if not str(row.get("reason", "")).startswith("bad row")]


def file_order(rows: Sequence[Row]) -> list[Row]:
    """Rows in the order of the benchmark's own file, where they say it."""
    return sorted(rows, key=lambda r: int(r.get("meta", {}).get("index", 0)))


def _failed(row: Row) -> bool:
    return row.get("outcome") == "failed"


def _plain(total: float) -> float | int:
    return int(total) if float(total).is_integer() else round(float(total), _DIGITS)
