"""Figures of a speed report from the rows of its run."""

from __future__ import annotations

from pipelines.measure.plan import Setting
from pipelines.measure.results import _accuracy, _row
from videoprune.config import PruneConfig


def test_accuracy_has_both_denominators():
    rows = [
        {"question": "1", "prediction": "A", "correct": True, "outcome": "complete", "video": "v"},
        {"question": "2", "prediction": "", "correct": False, "outcome": "complete", "video": "v"},
        {"question": "3", "prediction": "B", "correct": False, "outcome": "complete", "video": "w"},
        {"question": "4", "correct": False, "outcome": "failed", "video": "x"},
    ]
    base = [{**r, "prediction": "A"} for r in rows[:3]]
    found = _accuracy(rows, base)
    assert (found["all"], found["answered"]) == (0.25, 0.5)
    assert (found["parse_failures"], found["failed"], found["questions"]) == (1, 1, 4)
    assert found["agreement"] == 1 / 3


def test_speedups_are_paired_by_run():
    def timed(run, first):
        same = {"frames": 8, "concurrency": 1}
        return same | {"run": run, "first_token": first, "total": first, "encode": 1.0, "prefill": 1.0}

    base = [timed(0, 4.0), timed(1, 10.0), timed(2, 3.0)]
    runs = [timed(0, 2.0), timed(1, 2.0), timed(2, 3.0)]
    setting = Setting("random", 0.5, PruneConfig())
    row = _row(setting, runs, base, {"retention": 0.5})
    assert row["speedup"]["first_token"] == 2.0  # the median of 2, 5 and 1, not the ratio of medians
    assert row["seconds"]["first_token"] == {"median": 2.0, "low": 2.0, "high": 3.0}
