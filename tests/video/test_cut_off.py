"""No frame from the cut-off on is ever taken, whatever the policy: against slow loops, and in a real file."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.video.conftest import Clips
from videoprune.video import Policy, Reader, Sampling, frame_indices

gaps = st.lists(st.integers(1, 200), min_size=1, max_size=60)
POLICIES = get_args(Policy)


def _options(policy: str) -> dict[str, Any]:
    rate = {"fps": 2.0} if policy in ("fps", "last") else {}
    return rate | ({"timestamps": (0.5, 3.0, 1e6)} if policy == "timestamps" else {})


@given(
    gaps,
    st.integers(-500, 500),
    st.sampled_from(POLICIES),
    st.integers(1, 20),
    st.integers(1, 6000),
    st.none() | st.integers(1, 3000),
)
@settings(max_examples=300)
def test_a_cut_stream_is_sampled_as_if_the_rest_were_not_there(
    gaps: list[int], start: int, policy: Policy, count: int, until: int, window: int | None
) -> None:
    pts = [(start + t) / 100 for t in np.cumsum([0, *gaps[:-1]])]
    end = pts[-1] + gaps[-1] / 100
    keys = [i % 5 == 0 for i in range(len(pts))]
    cut = Sampling(
        policy, count, **_options(policy), until=until / 100, window=window / 100 if window else None
    )
    got = frame_indices(pts, keys, cut, end=end)
    ticks = [round(100 * p) - start for p in pts]  # whole hundredths since the first frame: no rounding
    stop = min(until, round(100 * end) - start)
    allowed = [i for i, t in enumerate(ticks) if t < until]
    recent = [i for i in allowed if window is None or ticks[i] >= stop - window] or allowed[-1:]
    assert got
    assert set(got) <= set(recent)
    alone = Sampling(policy, count, **_options(policy))
    part = [pts[i] for i in recent]
    alike = frame_indices(part, [keys[i] for i in recent], alone, end=pts[0] + stop / 100)
    assert got == [recent[i] for i in alike]


@given(gaps, st.integers(1, 9), st.sampled_from([0.5, 1.0, 4.0]))
@settings(max_examples=80)
def test_last_takes_the_newest_frame_and_those_before_it_at_a_rate(
    gaps: list[int], count: int, fps: float
) -> None:
    pts = [float(t) for t in np.cumsum([0, *gaps[:-1]])]
    wanted = set()
    for k in range(count):
        t = pts[-1] - k / fps
        if t >= pts[0]:
            wanted.add(max(i for i, p in enumerate(pts) if p <= t))
    got = frame_indices(pts, [True] * len(pts), Sampling("last", count, fps=fps))
    assert got == sorted(wanted)
    assert got[-1] == len(pts) - 1


def test_last_four_at_one_a_second_of_a_stream_at_two() -> None:
    pts = [i / 2 for i in range(120)]
    cut = Sampling("last", 4, fps=1.0, until=30.0)
    assert [pts[i] for i in frame_indices(pts, [True] * 120, cut)] == [26.5, 27.5, 28.5, 29.5]


@pytest.mark.parametrize("name", ["until", "window"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_times_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{name}={value}; allowed: a finite number above 0"):
        Sampling(**{name: value})


def test_last_needs_a_rate() -> None:
    with pytest.raises(ValueError, match="fps=None; allowed: a number with policy='last'"):
        Sampling("last")


def test_a_file_that_starts_late_is_cut_from_its_first_frame(tmp_path: Path) -> None:
    clips = Clips(tmp_path)
    path = clips.write("late.mkv", pts=[8000 + 40 * i for i in range(60)], tick=Fraction(1, 1000))
    with Reader() as reader:
        first = reader.read(path, Sampling("starts", 1)).pts_seconds[0]
        assert first == pytest.approx(8.0, abs=0.1)
        for policy in ("uniform", "last", "ends", "keyframe"):
            for backend in ("auto", "pyav"):
                cut = Sampling(policy, 8, **_options(policy), until=1.0)
                frames = reader.read(path, cut, backend=backend)
                numbers = [clips.number(image.numpy()) for image in frames.pixels]
                assert all(t - first < 1.0 for t in frames.pts_seconds)
                assert numbers == [round((t - first) * 25) for t in frames.pts_seconds]
                assert max(numbers) == {"keyframe": 24, "last": 24, "ends": 24, "uniform": 23}[policy]
                assert frames.duration_seconds == pytest.approx(1.0)
