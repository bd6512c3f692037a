"""Figures of a speed report from the rows of its run."""

from __future__ import annotations

from pipelines.measure.plan import Plan, Setting
from pipelines.measure.results import Seen, _best, _row, side
from pipelines.measure.scoring import Scoring, accuracy, among_best, groups_of, scores
from pipelines.run.tasks import Task
from videoprune.config import PruneConfig
from videoprune.types import Sample


def sample(number, video, duration=""):
    return Sample(str(number), video, "what?", ("a", "b"), "A", {"duration": duration, "video_id": video})


def said(number, prediction, outcome="complete", **more):
    text = {} if outcome == "failed" else {"text": prediction}
    right = {"prediction": prediction, "correct": prediction == "A", "outcome": outcome}
    return {"question": str(number), "reason": "gone" if outcome == "failed" else ""} | right | text | more


SAMPLES = [sample(1, "v", "short"), sample(2, "v", "short"), sample(3, "w", "long"), sample(4, "x", "long")]


def test_accuracy_has_both_denominators_and_a_paired_difference():
    scoring = Scoring(Task("made", "", SAMPLES), SAMPLES)
    run = scoring.answered([said(4, "", "failed"), said(1, "A"), said(2, ""), said(3, "B")])
    base = scoring.answered([said(i, "A") for i in (1, 2, 3, 4)])
    found = accuracy(run, base, scoring)
    assert (found["all"], found["answered"]) == (0.25, 0.5)
    assert (found["parse_failures"], found["failed"], found["questions"]) == (1, 1, 4)
    assert found["agreement"] == 1 / 3  # of those that neither failed at
    assert accuracy(run, run, scoring)["agreement"] == 1
    assert found["difference"] == -0.75
    assert found["difference_ci95"][0] <= -0.75 <= found["difference_ci95"][1]
    assert scoring.answered([said(1, "A")]) is None  # not whole yet


def test_scores_are_by_duration_and_a_question_may_leave_the_denominator():
    def each(rows):
        official = [float(r["correct"]) if r["prediction"] else None for r in rows]
        return {"official": official, "corrected": [float(r["correct"]) for r in rows]}

    scoring = Scoring(Task("made", "", SAMPLES, each=each, compared="corrected"), SAMPLES)
    run = scoring.answered([said(1, "A"), said(2, ""), said(3, "B"), said(4, "A")])
    base = scoring.answered([said(1, "A"), said(2, "A"), said(3, "A"), said(4, "B")])
    found = scores(run, base)
    assert list(found["official"]) == ["all", "short", "long"]
    assert (found["official"]["short"]["value"], found["official"]["short"]["n"]) == (100, 1)
    assert (found["corrected"]["short"]["value"], found["corrected"]["short"]["n"]) == (50, 2)
    assert found["official"]["short"]["difference"][0] == 0
    assert found["corrected"]["short"]["difference"][0] == -50
    assert accuracy(run, base, scoring)["all"] == 0.5


def test_without_durations_scores_are_by_category():
    rows = [{"duration": "", "category": c} for c in ("when", "what", "when")]
    assert groups_of(rows) == {"all": [0, 1, 2], "what": [1], "when": [0, 2]}


def test_scores_that_cannot_be_worked_out_leave_right_and_wrong_and_the_reason():
    def each(rows):
        raise ValueError("wordnet is not there")

    scoring = Scoring(Task("made", "", SAMPLES, each=each, compared="WUPS@0"), SAMPLES)
    run = scoring.answered([said(i, "A") for i in (1, 2, 3, 4)])
    assert accuracy(run, None, scoring)["all"] == 1
    assert scoring.lost == ["wordnet is not there"]


def test_nothing_within_the_paired_interval_of_the_best_is_ranked():
    videos = [str(i // 2) for i in range(40)]
    best = [1.0] * 40
    near = [0.0] + [1.0] * 39  # one video of twenty: draws without it show no difference
    far = [0.0, 1.0] * 20
    assert among_best({"best": best, "near": near, "far": far}, videos) == {"best", "near"}
    assert among_best({}, videos) == set()


def test_what_kept_more_than_wanted_is_not_among_the_best():
    scoring = Scoring(Task("made", "", SAMPLES), SAMPLES)
    prune = PruneConfig.from_dict({"encoder": {"method": "random", "keep": 0.2}})
    settings = (
        Setting("exact", 0.25, prune),
        Setting("coarse", 0.25, prune, 0.2),
        Setting("coarse", 0.25, prune, 0.3),
    )
    tokens = {"dense": 8, "encoder": 8, "fused": 8, "llm_layers": [8]}
    kept = {"exact": 0.27, "coarse@0.25~0.2": 0.22, "coarse@0.25~0.3": 0.28}
    asked = {
        s.label: [said(i, "A", tokens=tokens | {"retention": kept.get(s.label, 0.27)}) for i in (1, 2, 3, 4)]
        for s in settings
    }
    found = {label: scoring.answered(rows) for label, rows in asked.items()}
    plan = Plan(settings, (4,), (1,), 1)
    assert _best(plan, asked, found, scoring) == {"exact@0.25", "coarse@0.25~0.2"}
    sides = [side(settings[0], 0.27), *(side(settings[1], r) for r in (0.22, 0.251, 0.28))]
    assert sides == ["", "below", "at", "above"]


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


def test_what_took_too_much_memory_is_told():
    failed = {"setting": "none", "frames": 8, "concurrency": 32, "reason": "TooMuchMemoryError: 9 GiB"}
    plan = Plan((Setting("none", 1.0, PruneConfig()),), (8,), (1, 32), 1)
    told = Seen([], [], {}, [failed, failed | {"concurrency": 64}]).not_measured(plan)
    assert told == [{"method": "none, 8 frames, 32 at once", "reason": "TooMuchMemoryError: 9 GiB"}]
