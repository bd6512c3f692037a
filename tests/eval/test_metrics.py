"""Scores against counts by hand and loops in plain Python."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videoprune.eval import metrics
from videoprune.eval.metrics import (
    Accuracy,
    Score,
    Tally,
    agreement,
    bootstrap_means,
    clustered_interval,
    paired_difference,
    paired_ratio_difference,
    parse_failures,
)


def accuracy(records: list[dict[str, Any]]) -> Accuracy:
    tally = Tally()
    for one in records:
        tally.add(one)
    return tally.accuracy()


def record(question_id: str, prediction: str, answer: str = "A", **changes: Any) -> dict[str, Any]:
    return {
        "question_id": question_id,
        "video_id": question_id.split("-")[0],
        "category": "color",
        "duration": "short",
        "prediction": prediction,
        "answer": answer,
        "correct": prediction == answer,
        "outcome": "complete",
    } | changes


RECORDS = [
    record("1-1", "A"),
    record("1-2", "B", category="order"),
    record("1-3", "", category="order"),
    record("2-1", "A", duration="long", outcome="truncated"),
    record("2-2", "", duration="long", outcome="failed"),
    record("3-1", "C", duration="medium", category=""),
    record("4-1", "A", duration="other"),
]


def test_accuracy_by_hand() -> None:
    scores = accuracy(RECORDS)
    assert scores.overall == Score(correct=3, answered=5, questions=7)
    assert scores.overall.of_all == pytest.approx(3 / 7)
    assert scores.overall.of_answered == pytest.approx(3 / 5)
    assert scores.by_category == {"color": Score(3, 3, 4), "order": Score(0, 1, 2)}
    assert scores.by_duration == {
        "short": Score(1, 2, 3),
        "medium": Score(0, 1, 1),
        "long": Score(1, 1, 2),
        "other": Score(1, 1, 1),
    }
    assert list(scores.by_duration) == ["short", "medium", "long", "other"]


def test_an_unanswered_question_is_never_correct() -> None:
    odd = [record("1-1", "", correct=True), record("1-2", "A", outcome="failed", correct=True)]
    assert accuracy(odd).overall == Score(0, 0, 2)


def test_no_records() -> None:
    assert accuracy([]).overall == Score(0, 0, 0)
    assert accuracy([]).overall.of_all is None
    assert accuracy([]).overall.of_answered is None


def test_a_question_twice_is_refused() -> None:
    for call in (accuracy, lambda r: agreement(r, RECORDS), lambda r: agreement(RECORDS, r)):
        with pytest.raises(ValueError, match="question_id='2-1' appears twice"):
            call([*RECORDS, record("2-1", "B")])


def test_parse_failures_are_not_failed_videos() -> None:
    assert parse_failures(RECORDS) == ["1-3"]


def test_agreement() -> None:
    other = [
        record("1-1", "A"),
        record("1-2", "C"),
        record("1-3", ""),
        record("3-1", "C"),
        record("9-1", "A"),
    ]
    found = agreement(RECORDS, other)
    assert found.share == pytest.approx(2 / 4)  # two empty predictions do not agree
    assert (found.common, found.only_first, found.only_second) == (4, 3, 1)
    assert agreement(RECORDS, []).share is None
    answered = [r for r in RECORDS if r["prediction"]]
    assert agreement(answered, answered[::-1]).share == 1


def loop_means(values: list[float], clusters: list[str], draws: int, seed: int) -> list[float]:
    names = sorted(set(clusters))
    picks = np.random.default_rng(seed).integers(len(names), size=(draws, len(names)))
    means = []
    for row in picks:
        drawn = [v for pick in row for v, c in zip(values, clusters, strict=True) if c == names[pick]]
        means.append(sum(drawn) / len(drawn))
    return means


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.sampled_from([0.0, 1.0, -1.0]), st.sampled_from("abcde")), min_size=1, max_size=25),
    st.integers(0, 5),
)
def test_bootstrap_means_equal_the_loop(pairs: list[tuple[float, str]], seed: int) -> None:
    values, clusters = [v for v, _ in pairs], [c for _, c in pairs]
    means = bootstrap_means(values, clusters, draws=20, seed=seed)
    assert means.tolist() == pytest.approx(loop_means(values, clusters, 20, seed), abs=1e-12)


@pytest.mark.parametrize("at_once", [1, 7, 50])
def test_draws_in_parts_are_the_draws_at_once(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that many clusters take no more memory and the same intervals."""
    clusters = list("aabbbcddde")
    values = [float(i % 3) for i in range(10)]
    whole = bootstrap_means(values, clusters, draws=20, seed=2)
    difference = paired_ratio_difference(values, [1.0, None] * 5, clusters)
    monkeypatch.setattr(metrics, "_PICKED", at_once)
    assert bootstrap_means(values, clusters, draws=20, seed=2).tolist() == whole.tolist()
    assert paired_ratio_difference(values, [1.0, None] * 5, clusters) == difference


def test_interval_is_the_loops_quantiles_and_ignores_row_order() -> None:
    rng = np.random.default_rng(0)
    clusters = [str(c) for c in rng.integers(12, size=60)]
    correct = (rng.random(60) < 0.6).tolist()
    means = sorted(loop_means([float(c) for c in correct], clusters, 400, 3))
    low, high = clustered_interval(correct, clusters, level=0.9, draws=400, seed=3)
    assert (low, high) == pytest.approx((np.quantile(means, 0.05), np.quantile(means, 0.95)))
    assert low < np.mean(correct) < high
    order = rng.permutation(60)
    shuffled = clustered_interval(
        [correct[i] for i in order], [clusters[i] for i in order], level=0.9, draws=400, seed=3
    )
    assert shuffled == pytest.approx((low, high))


def test_clusters_widen_the_interval() -> None:
    """Ten equal answers per video carry the information of one: sqrt(10) times as wide."""
    correct = np.repeat(np.random.default_rng(1).random(60) < 0.5, 10)
    clustered = clustered_interval(correct, np.repeat(np.arange(60), 10).tolist())
    single = clustered_interval(correct, list(range(600)))
    ratio = (clustered[1] - clustered[0]) / (single[1] - single[0])
    assert ratio == pytest.approx(np.sqrt(10), rel=0.15)


def test_one_cluster_has_no_width() -> None:
    assert clustered_interval([1, 0, 1, 1], ["v"] * 4) == (0.75, 0.75)


def test_paired_difference() -> None:
    rng = np.random.default_rng(2)
    clusters = rng.integers(20, size=100).tolist()
    a, b = rng.random(100) < 0.7, rng.random(100) < 0.5
    found = paired_difference(a, b, clusters)
    assert found.value == pytest.approx(a.mean() - b.mean())
    assert found.low < found.value < found.high
    means = sorted(loop_means((a * 1.0 - b * 1.0).tolist(), [str(c) for c in clusters], 2000, 0))
    assert found[1:] == pytest.approx((np.quantile(means, 0.025), np.quantile(means, 0.975)))
    back = paired_difference(b, a, clusters)
    assert (back.value, back.low, back.high) == pytest.approx((-found.value, -found.high, -found.low))
    assert paired_difference(a, a, clusters) == (0, 0, 0)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="2 clusters; allowed: one cluster per value"):
        clustered_interval([1, 0, 1], ["a", "b"])
    with pytest.raises(ValueError, match="at least one"):
        clustered_interval([], [])
    with pytest.raises(ValueError, match="level=95; allowed"):
        clustered_interval([1], ["a"], level=95)
    with pytest.raises(ValueError, match="draws=0; allowed"):
        clustered_interval([1], ["a"], draws=0)
    with pytest.raises(ValueError, match="first has 2 values, second 1"):
        paired_difference([1, 0], [1], ["a", "b"])


def test_paired_ratio_difference_is_paired_difference_where_all_count() -> None:
    rng = random.Random(4)
    first, second = ([float(rng.random() < 0.6) for _ in range(30)] for _ in range(2))
    clusters = [str(i // 3) for i in range(30)]
    assert paired_ratio_difference(first, second, clusters) == pytest.approx(
        paired_difference(first, second, clusters)
    )


def test_a_question_may_leave_one_runs_denominator() -> None:
    clusters = ["a", "a", "b", "c"]
    found = paired_ratio_difference([1.0, None, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0], clusters)
    assert found.value == pytest.approx(2 / 3 - 2 / 4)
    # By hand, over all 27 draws of three videos: the least gap is that of draws without "a".
    assert found.low == 0
    assert found.high == pytest.approx(0.5)  # "a" alone: 1 of 1 against 1 of 2
    nothing = paired_ratio_difference([None] * 4, [1.0] * 4, clusters)
    assert nothing == (-1, -1, -1)
    with pytest.raises(ValueError, match="first has 1 values, second 2"):
        paired_ratio_difference([1.0], [1.0, 0.0], ["a", "b"])
