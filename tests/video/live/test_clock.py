"""Seconds that only ascend, whatever the presentation times do."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from videoprune.video.live.clock import STEP, ArrivalClock, PlayClock
from videoprune.video.live.thinning import Thinning

PTS = st.one_of(
    st.none(),
    st.integers(-(2**33), 2**33).map(lambda n: n / 90_000),  # MPEG-TS, which wraps
    st.integers(-(2**62), 2**62).map(float),
)
GAPS = st.floats(0, 20)


@given(st.lists(st.tuples(PTS, GAPS), max_size=60), st.none() | st.floats(0, 1e6))
@example([(95443.7, 0.04), (0.0, 0.04), (0.04, 0.04)], None)
def test_arrival_times_ascend_and_never_lie_in_the_future(
    frames: list[tuple[float | None, float]], after: float | None
) -> None:
    clock, now, last = ArrivalClock(after), after or 0.0, after
    for pts, gap in frames:
        now += gap
        seconds = clock.at(pts, now)
        assert last is None or seconds > last
        assert seconds <= (now if last is None else max(now, last + STEP))
        if pts is None:
            assert seconds >= now
        last = seconds


@given(
    st.lists(st.tuples(st.floats(0.001, 1), st.floats(0, 1)), min_size=1, max_size=50), st.floats(-1e6, 1e6)
)
def test_what_the_network_held_back_keeps_its_time(frames: list[tuple[float, float]], first: float) -> None:
    """Frames leave the camera `gap` apart and arrive in order, each held back by the network for a while."""
    clock, left, arrived, quickest = ArrivalClock(), 0.0, 0.0, math.inf
    given_out: list[float] = []
    for gap, held in frames:
        left += gap
        arrived = max(arrived, left + held)
        quickest = min(quickest, arrived - left)
        expected = left + quickest  # the oracle: as early as the quickest frame so far shows
        seconds = clock.at(first + left, arrived)
        assert seconds >= expected - 1e-6
        assert seconds <= max([expected + 5e-4 * arrived + 1e-6, *(s + STEP for s in given_out[-1:])])
        given_out.append(seconds)


def test_a_jump_takes_the_time_of_arrival_and_goes_on_from_there() -> None:
    clock = ArrivalClock()
    assert clock.at(100.0, 1.0) == 1.0
    assert clock.at(100.1, 1.3) == pytest.approx(1.1, abs=1e-3)  # late by 0.2 s
    assert clock.at(5000.0, 1.5) == 1.5  # forwards
    assert clock.at(5000.1, 1.7) == pytest.approx(1.6, abs=1e-3)
    assert clock.at(0.0, 2.0) == 2.0  # backwards: the camera started anew
    assert clock.at(0.1, 2.3) == pytest.approx(2.1, abs=1e-3)
    assert clock.at(0.2, 60.0) == 60.0  # nearly a minute late: rather a jump than the network


def test_a_camera_whose_clock_is_slow_does_not_fall_behind() -> None:
    clock, worst = ArrivalClock(), 0.0
    for n in range(8 * 3600):
        now = float(n)
        worst = max(worst, now - clock.at(now * (1 - 1e-4), now))
    assert worst < 0.01


@given(st.lists(PTS, max_size=60), st.floats(0.001, 1), st.sampled_from([10.0, 3600.0]))
def test_play_times_ascend(frames: list[float | None], interval: float, jump: float) -> None:
    clock = PlayClock(interval=interval, jump=jump)
    times = [seconds for pts in frames if (seconds := clock.at(pts)) is not None]
    assert all(a < b for a, b in pairwise(times))
    assert all(b - a <= jump + 1e-9 for a, b in pairwise(times))
    assert not frames or len(times) >= 1


@given(st.lists(st.integers(1, 90_000 * 60), min_size=1, max_size=50), st.integers(-(2**33), 2**33))
def test_play_times_are_the_pts_less_the_first(gaps: list[int], first: int) -> None:
    tick, clock, pts = 1 / 90_000, PlayClock(), first
    for gap in [0, *gaps]:
        pts += gap
        assert clock.at(pts * tick) == pts * tick - first * tick


def test_play_times_after_a_reset_a_repeat_and_without_pts() -> None:
    clock = PlayClock(interval=0.5)
    assert [clock.at(t) for t in (10.0, 10.5, 10.5, 10.2, 11.0)] == [0.0, 0.5, None, None, 1.0]
    assert [clock.at(t) for t in (0.0, 0.5, None, 1.5)] == [1.5, 2.0, 2.5, 3.0]  # from 0 again
    assert [clock.at(t) for t in (9999.0, 9999.5)] == [3.5, 4.0]  # a gap of hours
    assert PlayClock(origin=10.0).at(12.5) == 2.5
    growing = PlayClock(begin=7.0, jump=10.0)
    assert [growing.at(100.0, 7.0), growing.at(106.0, 7.1)] == [7.0, 13.0]  # a playlist is ahead of its time
    assert growing.at(107.0, 40.0) == 40.0  # the server paused


@given(
    st.lists(st.floats(0, 1000, allow_subnormal=False), unique=True, max_size=80).map(sorted),
    st.floats(0.05, 60),
    st.integers(0, 80),
)
def test_thinning_keeps_the_first_frame_of_each_span(times: list[float], fps: float, broken_off: int) -> None:
    thinning, kept = Thinning(fps), []
    for n, seconds in enumerate(times):
        if n == broken_off:  # another connection goes on
            thinning = Thinning(fps, kept[-1] if kept else None)
        if thinning.wants(seconds):
            thinning.keep(seconds)
            kept.append(seconds)
    spans: dict[int, float] = {}
    for seconds in times:
        spans.setdefault(math.floor((seconds + 1e-6) * fps), seconds)
    assert kept == list(spans.values())


def test_thinning_of_even_times_keeps_the_rate() -> None:
    thinning, kept = Thinning(5), []
    for n in range(250):
        if thinning.wants(n / 25):
            thinning.keep(n / 25)
            kept.append(n)
    assert kept == list(range(0, 250, 5))
    every = Thinning(None, 3.0)
    assert [every.wants(t) for t in (2.0, 3.0, 3.5)] == [False, False, True]


@pytest.mark.parametrize("fps", [0, -1, math.nan, math.inf])
def test_impossible_rates_are_named(fps: float) -> None:
    with pytest.raises(ValueError, match=r"^fps=.*allowed: "):
        Thinning(fps)
