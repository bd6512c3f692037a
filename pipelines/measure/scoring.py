"""What the answers of a speed run are worth: a benchmark's metrics by setting, beside the unpruned model's.

All settings answer the same questions, so differences are paired and their intervals drawn by video.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.run.results import Row
from pipelines.run.rows import question_fields
from pipelines.run.tasks import Task, right_or_wrong
from videoprune.eval.benchmarks.scores import ALL, Counts, questions_of
from videoprune.eval.judge import Verdict
from videoprune.eval.metrics import (
    clustered_interval,
    duration_order,
    is_answered,
    is_failed,
    paired_ratio_difference,
    parse_failures,
)
from videoprune.types import Sample

JUDGED = "judge: yes over all questions"


@dataclass(frozen=True)
class Answered:
    """One setting's rows, in the order of the questions, what each counts by metric, and what a judge says of each."""

    rows: list[Row]
    counts: dict[str, Counts]
    verdicts: list[Verdict]

    @property
    def videos(self) -> list[str]:
        """Of each question."""
        return [row["video_id"] for row in self.rows]


@dataclass(frozen=True)
class Scoring:
    """samples: those that were asked. judge: of their answers. lost: why the benchmark's own metrics could not be
    worked out. known: by frames and setting, what `once` has worked out, so that answers are judged once."""

    task: Task
    samples: Sequence[Sample]
    judge: Callable[[Sequence[Row]], list[Verdict]] | None = None
    lost: list[str] = field(default_factory=list)
    known: dict[tuple[int, str], Answered | None] = field(default_factory=dict)

    def once(self, frames: int, label: str, rows: Sequence[Row]) -> Answered | None:
        """`answered`, worked out at the first call."""
        if (frames, label) not in self.known:
            self.known[frames, label] = self.answered(rows)
        return self.known[frames, label]

    def answered(self, rows: Sequence[Row]) -> Answered | None:
        """rows: of answers.jsonl, of one setting and number of frames. None if any question has none."""
        found = {row["question"]: row for row in rows}
        if any(s.question_id not in found for s in self.samples) or not self.samples:
            return None
        joined = [question_fields(s) | _said(found[s.question_id]) for s in self.samples]
        asked = [dict(row) for row in questions_of(joined)]
        if not asked:
            return None
        verdicts = self.judge(asked) if self.judge else []
        judged: dict[str, Counts] = {JUDGED: [float(v.yes) for v in verdicts]} if self.judge else {}
        return Answered(asked, self._counts(asked) | judged, verdicts)

    def _counts(self, rows: Sequence[Row]) -> dict[str, Counts]:
        try:
            counts = self.task.each(rows)
        except ValueError as error:  # word data that is not installed must not cost the answers
            if str(error) not in self.lost:
                self.lost.append(str(error))
            counts = right_or_wrong(rows)
        return counts

    def compared(self, counts: Mapping[str, Counts]) -> str:
        """The metric that settings are compared by."""
        return self.task.compared if self.task.compared in counts else next(iter(counts))


def accuracy(run: Answered, base: Answered | None, scoring: Scoring) -> dict[str, Any]:
    """The metric that settings are compared by, over all questions and over those with an answer that could be read."""
    counts = run.counts[scoring.compared(run.counts)]
    values = [value or 0.0 for value in counts]
    read = [value for value, row in zip(values, run.rows, strict=True) if is_answered(row)]
    found = {
        "all": sum(values) / len(values),
        "answered": sum(read) / len(read) if read else None,
        "ci95": list(clustered_interval(values, run.videos)),
        "agreement": None,
        "difference": None,
        "difference_ci95": None,
        "parse_failures": len(parse_failures(run.rows)),
        "failed": sum(map(is_failed, run.rows)),
        "questions": len(run.rows),
    }
    if base is not None:
        pairs = zip(run.rows, base.rows, strict=True)
        both = [a["prediction"] == b["prediction"] for a, b in pairs if not (is_failed(a) or is_failed(b))]
        found["agreement"] = sum(both) / len(both) if both else None
        other = base.counts[scoring.compared(base.counts)]
        gap = paired_ratio_difference(counts, other, run.videos)
        found |= {"difference": gap.value, "difference_ci95": [gap.low, gap.high]}
    return found


def no_accuracy() -> dict[str, Any]:
    nothing = dict.fromkeys(("all", "answered", "ci95", "agreement", "difference", "difference_ci95"))
    return {**nothing, "parse_failures": 0, "failed": 0, "questions": 0}


def scores(run: Answered, base: Answered | None) -> dict[str, Any]:
    """By metric, over all and by duration (by category where there are no durations): percent of the questions that
    count, how many they are, and the difference to the unpruned with its 95 % interval."""
    by = groups_of(run.rows)
    found: dict[str, Any] = {}
    for metric, counts in run.counts.items():
        other = base.counts.get(metric) if base is not None else None
        found[metric] = {
            name: _figure(counts, other, run.videos, places) for name, places in by.items() if places
        }
    return found


def groups_of(rows: Sequence[Row]) -> dict[str, list[int]]:
    """Places of the rows: all, and by duration, or by category."""
    kind = "duration" if any(row["duration"] for row in rows) else "category"
    names = {row[kind] for row in rows} - {""}
    order = sorted(names, key=duration_order)
    return {ALL: list(range(len(rows)))} | {n: [i for i, r in enumerate(rows) if r[kind] == n] for n in order}


def among_best(runs: Mapping[str, Counts], videos: Sequence[str]) -> set[str]:
    """The best of `runs`, and all that are not worse than it by more than the interval of the paired difference."""
    if not runs:
        return set()
    mean = lambda counts: sum(value or 0.0 for value in counts)  # noqa: E731
    best = max(runs, key=lambda name: mean(runs[name]))
    return {n for n, run in runs.items() if paired_ratio_difference(runs[best], run, videos).low <= 0}


def _figure(
    counts: Counts, other: Counts | None, videos: Sequence[str], places: Sequence[int]
) -> dict[str, Any]:
    mine, clusters = [counts[i] for i in places], [videos[i] for i in places]
    counted = [value for value in mine if value is not None]
    found: dict[str, Any] = {"n": len(counted), "value": None, "difference": None}
    if counted:
        found["value"] = 100 * sum(counted) / len(counted)
    if other is not None:
        gap = paired_ratio_difference(mine, [other[i] for i in places], clusters)
        found["difference"] = [100 * x for x in gap]
    return found


def _said(row: Row) -> Row:
    keys = ("text", "prediction", "correct", "outcome", "reason")
    return {"text": "", "reason": ""} | {k: row[k] for k in keys if k in row}
