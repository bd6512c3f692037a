"""Frames that are pushed: the newest wins, everything is counted, nothing broken gets through."""

from __future__ import annotations

import math
import threading
import time
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.video.live.pictures import as_jpeg, grey
from videoprune.video.live import JpegError, LiveFrame, LiveSource, PushedFrames
from videoprune.video.live.newest import NewestFrame


def _value(frame: LiveFrame | None) -> float:
    assert frame is not None
    return float(frame.pixels.float().mean())


def test_the_newest_frame_is_taken_once() -> None:
    source: LiveSource = PushedFrames()
    assert isinstance(source, PushedFrames)
    assert source.stats().state == "connecting"
    before = time.time()
    for value in (10, 60, 110):
        assert source.push_jpeg(as_jpeg(grey(value)))
    frame = source.next(0)
    assert frame is not None
    assert _value(frame) == pytest.approx(110, abs=2)
    assert frame.pixels.dtype == torch.uint8
    assert frame.pixels.shape == (48, 80, 3)
    assert before <= frame.wall <= time.time()
    assert source.next(0) is None
    stats = source.stats()
    assert (stats.state, stats.received, stats.taken, stats.dropped, stats.waiting) == ("live", 3, 1, 2, 0)


def test_a_broken_picture_is_counted_and_the_next_comes_through() -> None:
    source = PushedFrames(fps=1.0, max_pixels=48 * 80)
    with pytest.raises(JpegError, match="allowed: "):
        source.push_jpeg(b"\xff\xd8 no", seconds=5.0)
    with pytest.raises(JpegError, match="48 x 88 pixels; allowed: 1 to 3840 in all"):
        source.push_jpeg(as_jpeg(grey(1, 48, 88)), seconds=5.1)
    assert source.push_jpeg(as_jpeg(grey(9)), seconds=5.2)  # in the same second, which has no frame yet
    stats = source.stats()
    assert (stats.broken, stats.received, stats.state) == (2, 1, "live")
    assert "48 x 88" in stats.reason


def test_thinned_pictures_are_not_decoded() -> None:
    source = PushedFrames(fps=2.0)
    kept = [source.push_jpeg(as_jpeg(grey(n)) if n % 5 == 0 else b"junk", seconds=n / 10) for n in range(20)]
    assert [n for n, it in enumerate(kept) if it] == [0, 5, 10, 15]
    assert (source.stats().received, source.stats().thinned) == (4, 16)


def test_own_pictures_are_copied_and_fitted() -> None:
    source = PushedFrames(max_side=40)
    picture = np.random.default_rng(0).integers(0, 256, (20, 40, 3), dtype=np.uint8)
    for pixels in (picture, torch.from_numpy(picture)):
        source.push(pixels)
        frame = source.next(0)
        assert frame is not None
        assert np.array_equal(frame.pixels.numpy(), picture)
        assert not np.shares_memory(frame.pixels.numpy(), picture)
    source.push(grey(7, 80, 20))
    frame = source.next(0)
    assert frame is not None
    assert frame.pixels.shape == (40, 10, 3)
    exact = PushedFrames(size=(30, 30))
    exact.push(grey(7, 80, 20)[::-1, ::-1])
    frame = exact.next(0)
    assert frame is not None
    assert frame.pixels.shape == (30, 30, 3)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 3)),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
    ],
)
def test_what_is_no_picture_is_named(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"^pixels: .*allowed: uint8 \(H, W, 3\)"):
        PushedFrames().push(pixels)


@pytest.mark.parametrize("seconds", [-1.0, 3.0, 2.9, math.nan, math.inf])
def test_a_callers_clock_must_ascend(seconds: float) -> None:
    source = PushedFrames()
    source.push(grey(1), seconds=3.0)
    with pytest.raises(ValueError, match=r"^seconds=.*allowed: "):
        source.push(grey(1), seconds=seconds)
    assert source.stats().received == 1


@pytest.mark.parametrize(
    "options", [{"max_bytes": 0}, {"max_pixels": -1}, {"fps": 0}, {"max_side": 0}, {"size": (0, 1)}]
)
def test_impossible_options_are_named(options: dict) -> None:
    with pytest.raises(ValueError, match=rf"^{next(iter(options))}=.*allowed: "):
        PushedFrames(**options)


def test_the_last_frame_can_be_taken_after_the_end_and_not_after_the_close() -> None:
    source = PushedFrames()
    source.push(grey(1))
    source.end()
    assert not source.ended
    assert not source.push(grey(2))
    assert _value(source.next(0)) == 1
    assert source.ended
    assert source.next(60) is None  # at once
    closed = PushedFrames()
    closed.push(grey(1))
    closed.close()
    closed.close()
    assert closed.next(60) is None
    assert (closed.ended, closed.stats().state, closed.stats().dropped) == (True, "closed", 1)
    assert not closed.push_jpeg(as_jpeg(grey(1)))
    source.close()
    assert source.stats().state == "ended"


def test_close_wakes_who_waits() -> None:
    source, got = PushedFrames(), []
    waiting = [threading.Thread(target=lambda: got.append(source.next(60))) for _ in range(3)]
    for thread in waiting:
        thread.start()
    source.close()
    for thread in waiting:
        thread.join(10)
    assert got == [None] * 3


@pytest.mark.parametrize("timeout", [-1, math.nan, math.inf])
def test_impossible_waits_are_named(timeout: float) -> None:
    with pytest.raises(ValueError, match=r"^timeout=.*allowed: "):
        PushedFrames().next(timeout)


def test_many_threads_push_and_take_and_every_frame_is_accounted_for() -> None:
    source, taken = PushedFrames(), [[] for _ in range(3)]
    data = as_jpeg(grey(50))

    def push() -> None:
        for n in range(40):
            if n % 10 == 3:
                with pytest.raises(JpegError):
                    source.push_jpeg(data[:-1])
            else:
                assert source.push_jpeg(data)

    def take(mine: list[float]) -> None:
        while not source.ended:
            if (frame := source.next(0.05)) is not None:
                mine.append(frame.seconds)

    pushers = [threading.Thread(target=push) for _ in range(3)]
    takers = [threading.Thread(target=take, args=(mine,)) for mine in taken]
    for thread in (*pushers, *takers):
        thread.start()
    for thread in pushers:
        thread.join(60)
    source.end()
    for thread in takers:
        thread.join(60)
    stats = source.stats()
    assert (stats.received, stats.broken) == (3 * 36, 3 * 4)
    assert stats.received == stats.taken + stats.dropped + stats.waiting
    assert stats.taken == sum(map(len, taken))
    assert len({s for mine in taken for s in mine}) == stats.taken  # none twice
    for mine in taken:
        assert all(a < b for a, b in pairwise(mine))


OPERATIONS = st.lists(st.sampled_from(["put", "next", "end", "close"]), max_size=30)


@given(OPERATIONS)
def test_the_place_for_one_frame_against_a_list(operations: list[str]) -> None:
    place, waiting, offered, state = NewestFrame(), [], 0, "connecting"
    taken = dropped = received = 0
    for operation in operations:
        final = state in ("ended", "closed")
        if operation == "put":
            frame = LiveFrame(torch.zeros(1, 1, 3, dtype=torch.uint8), float(offered), 0.0)
            offered += 1
            assert place._put(frame) == (not final)
            if not final:
                dropped, waiting, received, state = dropped + len(waiting), [frame], received + 1, "live"
        elif operation == "next":
            if waiting or final:  # else it would wait
                assert place.next(0) is (waiting[0] if waiting else None)
                taken, waiting = taken + len(waiting), []
        elif operation == "end":
            place._become("ended")
            state = state if final else "ended"
        else:
            place.close()
            dropped, waiting, state = dropped + len(waiting), [], state if final else "closed"
        stats = place.stats()
        assert (stats.received, stats.taken, stats.dropped) == (received, taken, dropped)
        assert (stats.waiting, stats.state) == (len(waiting), state)
        assert place.ended == (state in ("ended", "closed") and not waiting)
