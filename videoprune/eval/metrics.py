"""Scores of records: accuracy with both denominators, intervals clustered by video, agreement of two runs.

A record is one line of results.jsonl, a plain dict with question_id, video_id, category, duration,
prediction, answer, correct and outcome. A prediction of "" means that no choice could be read from the
model's text. A question counts as answered if its outcome is not "failed" and its prediction is not "".

Shapes: Q questions, C clusters (videos), R bootstrap draws.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Record = Mapping[str, Any]
_DURATIONS = ("short", "medium", "long")
_PICKED = 2**22  # clusters drawn at once


@dataclass(frozen=True)
class Score:
    """Counts of one group of questions; the fractions are None where the denominator is 0."""

    correct: int
    answered: int
    questions: int

    @property
    def of_all(self) -> float | None:
        """Correct over all questions: what was not answered is wrong."""
        return self.correct / self.questions if self.questions else None

    @property
    def of_answered(self) -> float | None:
        """Correct over answered questions: the official figure of Video-MME."""
        return self.correct / self.answered if self.answered else None


@dataclass(frozen=True)
class Accuracy:
    """Scores overall and by group. A record with an empty category or duration is in no such group."""

    overall: Score
    by_category: dict[str, Score]
    by_duration: dict[str, Score]


class Difference(NamedTuple):
    """Mean of the first run minus mean of the second, and its interval."""

    value: float
    low: float
    high: float


class Agreement(NamedTuple):
    """Share of equal predictions among the `common` questions (None without any); counts of the others."""

    share: float | None
    common: int
    only_first: int
    only_second: int


def is_failed(record: Record) -> bool:
    return bool(record["outcome"] == "failed")


def is_answered(record: Record) -> bool:
    return not is_failed(record) and record["prediction"] != ""


def is_correct(record: Record) -> bool:
    return is_answered(record) and bool(record["correct"])


class Tally:
    """Counts records one by one, so that they need not be held. outcomes: how many of each."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self._seen: set[str] = set()
        self._all = [0, 0, 0]  # correct, answered, questions
        self._by: dict[str, dict[str, list[int]]] = {"category": {}, "duration": {}}

    def add(self, record: Record) -> None:
        """Raises ValueError if its question_id was there before."""
        name = record["question_id"]
        if name in self._seen:
            raise ValueError(f"question_id={name!r} appears twice; allowed: one record per question")
        self._seen.add(name)
        self.outcomes[record["outcome"]] += 1
        counts = is_correct(record), is_answered(record), True
        groups = [group.setdefault(record[field], [0, 0, 0]) for field, group in self._by.items()]
        for total in (self._all, *groups):
            for i, count in enumerate(counts):
                total[i] += count

    def accuracy(self) -> Accuracy:
        """Overall, by category (a to z) and by duration (short, medium, long, others)."""

        def scores(field: str, order: Callable[[str], Any]) -> dict[str, Score]:
            found = self._by[field]
            return {name: Score(*found[name]) for name in sorted(found.keys() - {""}, key=order)}

        return Accuracy(Score(*self._all), scores("category", str), scores("duration", duration_order))


def duration_order(name: str) -> tuple[int, str]:
    """What sorts durations: short, medium, long, then others by name."""
    return (_DURATIONS.index(name) if name in _DURATIONS else len(_DURATIONS)), name


def parse_failures(records: Iterable[Record]) -> list[str]:
    """question_id of each record whose video was read but whose answer could not be read as a choice."""
    return [r["question_id"] for r in records if not is_failed(r) and not is_answered(r)]


def agreement(first: Sequence[Record], second: Sequence[Record]) -> Agreement:
    """How often two runs say the same, right or wrong. An empty prediction agrees with nothing.

    Raises ValueError if a question_id appears twice in one run.
    """
    a, b = _by_id(first), _by_id(second)
    common = a.keys() & b.keys()
    same = sum(
        is_answered(a[q]) and is_answered(b[q]) and a[q]["prediction"] == b[q]["prediction"] for q in common
    )
    share = same / len(common) if common else None
    return Agreement(share, len(common), len(a.keys() - common), len(b.keys() - common))


def clustered_interval(
    correct: Sequence[float] | NDArray[Any],
    clusters: Sequence[Hashable],
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `correct` (Q,), drawing whole clusters with replacement.

    Questions on one video share its luck, so an interval that draws single questions is too narrow (Efron and
    Tibshirani 1993, An Introduction to the Bootstrap, sections 8 and 13). With one cluster it has no width.
    Raises ValueError for no values, unequal lengths, or a level outside (0, 1).
    """
    means = bootstrap_means(correct, clusters, draws=draws, seed=seed)
    if not 0 < level < 1:
        raise ValueError(f"level={level}; allowed: between 0 and 1")
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_difference(
    first: Sequence[float] | NDArray[Any],
    second: Sequence[float] | NDArray[Any],
    clusters: Sequence[Hashable],
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Difference:
    """Mean of `first` minus mean of `second`, both (Q,) over the same questions in the same order.

    The draws are paired: both runs see the same videos, so what makes a video hard cancels.
    Raises ValueError as `clustered_interval` does.
    """
    if len(first) != len(second):
        raise ValueError(f"first has {len(first)} values, second {len(second)}; allowed: the same questions")
    gap = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    low, high = clustered_interval(gap, clusters, level=level, draws=draws, seed=seed)
    return Difference(float(gap.mean()), low, high)


def paired_ratio_difference(
    first: Sequence[float | None],
    second: Sequence[float | None],
    clusters: Sequence[Hashable],
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Difference:
    """As `paired_difference`, where a question (None) may leave one run's denominator: the mean over those that count.

    A run of which nothing counts, in all or in a draw, has the mean 0, as Video-MME's script prints.
    """
    if len(first) != len(second):
        raise ValueError(f"first has {len(first)} values, second {len(second)}; allowed: the same questions")
    if not len(first) or len(first) != len(clusters):
        raise ValueError(f"{len(first)} values for {len(clusters)} clusters; allowed: one each, at least one")
    member, means, value = _members(clusters), [], 0.0
    for sign, run in ((1, first), (-1, second)):
        right = np.bincount(member, weights=[x or 0.0 for x in run])  # (C,)
        counted = np.bincount(member, weights=[x is not None for x in run])
        value += sign * float(right.sum() / max(counted.sum(), 1))
        picks = _picks(len(right), draws, seed)  # the same draws for both
        means.append(np.concatenate([right[p].sum(1) / np.maximum(counted[p].sum(1), 1) for p in picks]))
    gaps = means[0] - means[1]
    low, high = np.quantile(gaps, [(1 - level) / 2, (1 + level) / 2])
    return Difference(value, float(low), float(high))


def bootstrap_means(
    values: Sequence[float] | NDArray[Any], clusters: Sequence[Hashable], *, draws: int, seed: int
) -> NDArray[np.float64]:
    """Means (R,) of `values` (Q,) over draws of C whole clusters each. Names are compared as texts."""
    x = np.asarray(values, np.float64)
    if x.ndim != 1 or not len(x) or len(x) != len(clusters):
        raise ValueError(
            f"values {x.shape} for {len(clusters)} clusters; allowed: one cluster per value, at least one"
        )
    if draws < 1:
        raise ValueError(f"draws={draws}; allowed: 1 or more")
    member = _members(clusters)
    sums, sizes = np.bincount(member, weights=x), np.bincount(member)  # (C,)
    means = [sums[p].sum(axis=1) / sizes[p].sum(axis=1) for p in _picks(len(sums), draws, seed)]
    return np.concatenate(means)


def _members(clusters: Sequence[Hashable]) -> NDArray[np.int64]:
    """The number of each one's cluster, which count in the order of their names as texts."""
    place = {name: i for i, name in enumerate(sorted(set(map(str, clusters))))}
    return np.fromiter((place[str(c)] for c in clusters), np.int64, len(clusters))


def _picks(clusters: int, draws: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """The clusters of each draw, (some draws, C) at a time: all at once are 16 GB for a million clusters."""
    generator = np.random.default_rng(seed)
    at_once = max(1, _PICKED // clusters)
    for start in range(0, draws, at_once):
        yield generator.integers(clusters, size=(min(at_once, draws - start), clusters))


def _by_id(records: Sequence[Record]) -> dict[str, Record]:
    found: dict[str, Record] = {}
    for record in records:
        name = record["question_id"]
        if name in found:
            raise ValueError(f"question_id={name!r} appears twice; allowed: one record per question")
        found[name] = record
    return found
