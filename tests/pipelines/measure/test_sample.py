"""The sample of a benchmark: whole videos, in proportion to durations, the same for a seed, growing with the limit."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.measure.sample import in_turn, limited, sample_facts, sample_line, video_name
from pipelines.run.stages import group_by_video
from videoprune.types import Sample

DURATIONS = ("short", "medium", "long")


def asked(counts: dict[str, int], questions: int = 3) -> list[Sample]:
    return [
        Sample(f"{name}{i}-{q}", f"{name}{i}.mp4", "what?", meta={"duration": name, "video_id": f"{name}{i}"})
        for name, n in counts.items()
        for i in range(n)
        for q in range(questions)
    ]


@settings(max_examples=40)
@given(
    counts=st.fixed_dictionaries({d: st.integers(1, 12) for d in DURATIONS}),
    limit=st.integers(1, 60),
    seed=st.integers(0, 9),
)
def test_whole_videos_in_proportion_and_the_same_each_time(counts, limit, seed):
    samples = asked(counts)
    order = in_turn(samples, seed)
    assert sorted(i.video for i in order) == sorted({s.video for s in samples})
    chosen = limited(order, limit)
    assert [i.video for i in chosen] == [i.video for i in limited(in_turn(samples, seed), limit)]
    assert all(len(i.samples) == 3 for i in chosen)
    assert sum(len(i.samples) for i in chosen) <= max(limit, 3)
    total, taken = sum(counts.values()), Counter(i.samples[0].meta["duration"] for i in chosen)
    for name, n in counts.items():
        assert abs(taken[name] - len(chosen) * n / total) <= 1.5
    larger = limited(order, limit + 9)
    assert larger[: len(chosen)] == chosen  # what was measured stays, more is added


def test_another_seed_is_another_sample():
    samples = asked(dict.fromkeys(DURATIONS, 40))
    first, second = (limited(in_turn(samples, seed), 60) for seed in (0, 1))
    assert {i.video for i in first} != {i.video for i in second}
    assert Counter(i.samples[0].meta["duration"] for i in first) == {"short": 7, "medium": 7, "long": 6}


@pytest.mark.parametrize("seed", range(4))
def test_without_durations_the_file_is_covered_evenly(seed):
    samples = asked({"": 64}, questions=2)
    places = sorted(int(video_name(i)) for i in limited(in_turn(samples, seed), 16))
    assert len(places) == 8
    assert {b - a for a, b in pairwise(places)} == {8}


def test_broken_rows_stay_among_them():
    samples = [*asked({"short": 2}), Sample("row 7", "row 7", "", meta={"unusable": "bad row"})]
    assert {i.video for i in in_turn(samples, 0)} == {"short0.mp4", "short1.mp4", "row 7"}


def test_the_sample_is_named():
    samples = asked(dict.fromkeys(DURATIONS, 4))
    items = in_turn(samples, 3)
    facts = sample_facts(items, limited(items, 10), 3)
    assert sample_line(facts) == (
        "9 of 36 questions, 3 of 12 videos, drawn by seed 3 (1 short, 1 medium, 1 long); "
        f"videos in sample.json, digest {facts['digest']}"
    )
    assert len(facts["names"]) == 3
    whole = sample_facts(items, items, 3)
    assert sample_line(whole).startswith("all 36 questions on 12 videos (4 short, 4 medium, 4 long)")
    assert whole["digest"] != facts["digest"]
    assert len(group_by_video(samples)) == whole["videos"]
