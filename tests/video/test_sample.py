"""The sampler against slow loops over times."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videoprune.video import Sampling, frame_indices

gaps = st.lists(st.integers(1, 200), min_size=1, max_size=60)


def _clock(gaps: list[int], start: int) -> list[float]:
    return [(start + t) / 100 for t in np.cumsum([0, *gaps[:-1]])]


def _shown(pts: list[float], t: float) -> int:
    index = 0
    for i, p in enumerate(pts):
        if p <= t + 1e-6:
            index = i
    return index


def _thinned(row: list[int], count: int) -> list[int]:
    if len(row) <= count:
        return row
    return [row[int((k + 0.5) * len(row) / count)] for k in range(count)]


@given(gaps, st.integers(-500, 500), st.integers(1, 20))
@settings(max_examples=80)
def test_uniform_takes_the_middles_of_equal_spans(gaps: list[int], start: int, count: int) -> None:
    pts = _clock(gaps, start)
    end = pts[-1] + gaps[-1] / 100
    got = frame_indices(pts, [True] * len(pts), Sampling(max_frames=count), end=end)
    assert len(got) == min(count, len(pts))
    assert got == sorted(set(got))
    if count < len(pts):
        span = (end - pts[0]) / count
        middles = {_shown(pts, pts[0] + (k + 0.5) * span) for k in range(count)}
        assert middles <= set(got)
        if len(middles) == count:
            assert got == sorted(middles)


def test_uniform_goes_by_time_not_by_index() -> None:
    pts = [0.0, 0.1, 0.2, 0.3, 0.4, 10.0, 20.0, 30.0]  # ends at 40
    assert frame_indices(pts, [True] * 8, Sampling(max_frames=4), end=40.0) == [4, 5, 6, 7]


def test_uniform_fills_up_where_one_frame_stays_for_long() -> None:
    pts = [0.0, 1.0, 2.0, 3.0, 4.0, 100.0]
    assert frame_indices(pts, [True] * 6, Sampling(max_frames=4), end=101.0) == [2, 3, 4, 5]


@given(gaps, st.integers(-500, 500), st.sampled_from([0.1, 0.5, 1.0, 2.0, 7.5, 30.0]), st.integers(1, 30))
@settings(max_examples=80)
def test_fps_takes_a_frame_at_every_tick(gaps: list[int], start: int, fps: float, count: int) -> None:
    pts = _clock(gaps, start)
    end = pts[-1] + gaps[-1] / 100
    ticks = [pts[0] + k / fps for k in range(math.ceil((end - pts[0]) * fps + 1))]
    row = sorted({_shown(pts, t) for t in ticks if t < end - 1e-6})
    got = frame_indices(pts, [True] * len(pts), Sampling("fps", count, fps=fps), end=end)
    assert got == _thinned(row, count)


def test_fps_above_the_rate_takes_every_frame_once() -> None:
    pts = [i / 25 for i in range(50)]
    assert frame_indices(pts, [True] * 50, Sampling("fps", 1000, fps=1000.0)) == list(range(50))


def test_fps_is_small_for_a_stream_that_spans_years() -> None:
    assert frame_indices([0.0, 1e9], [True, True], Sampling("fps", 8, fps=30.0)) == [0, 1]


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(1, 20))
@settings(max_examples=60)
def test_keyframes_are_thinned_evenly(keys: list[bool], count: int) -> None:
    row = [i for i, key in enumerate(keys) if key] or [0]
    got = frame_indices(np.arange(len(keys)), keys, Sampling("keyframe", count))
    assert got == _thinned(row, count)


@given(gaps, st.lists(st.integers(-700, 20_000), min_size=1, max_size=12))
@settings(max_examples=60)
def test_timestamps_take_the_frame_on_screen(gaps: list[int], times: list[int]) -> None:
    pts = _clock(gaps, 300)
    got = frame_indices(
        pts, [True] * len(pts), Sampling("timestamps", timestamps=tuple(t / 100 for t in times))
    )
    assert got == sorted({_shown(pts, t / 100) for t in times})


def test_a_time_that_floats_miss_by_a_hair_hits_its_frame() -> None:
    pts = [0.0, 0.1, 0.2, 0.3]
    assert frame_indices(pts, [True] * 4, Sampling("timestamps", timestamps=(0.1 + 0.2 - 1e-12,))) == [3]


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling("fps", fps=2.0),
        Sampling("keyframe"),
        Sampling("timestamps", timestamps=(-1.0, 9.0)),
    ],
)
def test_none_and_one_frame(sampling: Sampling) -> None:
    assert frame_indices([], [], sampling) == []
    assert frame_indices([8.333], [True], sampling) == [0]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"policy": "random"}, "policy"),
        ({"max_frames": 0}, "max_frames"),
        ({"max_frames": 2.0}, "max_frames"),
        ({"max_frames": True}, "max_frames"),
        ({"policy": "fps"}, "fps"),
        ({"fps": 2.0}, "fps"),
        ({"policy": "fps", "fps": 0.0}, "fps"),
        ({"policy": "fps", "fps": math.inf}, "fps"),
        ({"policy": "timestamps"}, "timestamps"),
        ({"timestamps": (1.0,)}, "timestamps"),
        ({"policy": "timestamps", "timestamps": (math.nan,)}, "timestamps"),
    ],
)
def test_impossible_options_are_named(options: dict, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}=.*allowed: "):
        Sampling(**options)


@pytest.mark.parametrize(("pts", "keys"), [([0.0, 0.0], [True] * 2), ([1.0, 0.5], [True] * 2), ([0.0], [])])
def test_times_must_ascend_and_match_the_flags(pts: list[float], keys: list[bool]) -> None:
    with pytest.raises(ValueError, match="pts"):
        frame_indices(pts, keys, Sampling())
