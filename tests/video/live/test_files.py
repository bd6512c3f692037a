"""Files as live sources, against the project's reader."""

from __future__ import annotations

import subprocess
import sys
import time
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.video.live.taking import take, take_all
from videoprune.video import Reader, Sampling, VideoError
from videoprune.video.live import LiveFrame, open_live
from videoprune.video.scan import scan

pytestmark = pytest.mark.usefixtures("nothing_left")

CLIPS: dict[str, dict[str, Any]] = {
    "mp4": {},
    "mkv": {"pts": [8333 + 40 * i + 7 * (i % 3) for i in range(60)], "tick": Fraction(1, 1000)},
    "ts": {"tick": Fraction(1, 90_000), "pts": [3600 * (500 + i) for i in range(60)]},
    "avi": {"codec": "mpeg4", "b_frames": 2},
    "mov": {"codec": "mjpeg", "pixel_format": "yuvj420p"},
}


def _all(path: Path, **options: Any) -> list[LiveFrame]:
    with open_live(path, paced=False, **options) as source:
        frames = take_all(source)
        stats = source.stats()
    assert stats.state == "ended", stats
    assert stats.received == stats.taken == len(frames)
    assert (stats.dropped, stats.reconnects) == (0, 0)
    return frames


def _assert_as_read(reader: Reader, path: Path, frames: list[LiveFrame], **options: Any) -> None:
    """Bit for bit what the reader gives at these times, which count from the first frame."""
    start = float(scan(str(path)).seconds[0])
    times = tuple(frame.seconds + start for frame in frames)
    read = reader.read(path, Sampling("timestamps", timestamps=times), backend="pyav", **options)
    assert len(read.pts_seconds) == len(frames)
    np.testing.assert_allclose([p - start for p in read.pts_seconds], [f.seconds for f in frames], atol=1e-9)
    for frame, pixels in zip(frames, read.pixels, strict=True):
        assert np.array_equal(frame.pixels.numpy(), pixels.numpy())


@pytest.mark.parametrize("kind", CLIPS)
def test_every_frame_is_the_readers(clips, reader: Reader, kind: str) -> None:
    path = clips.write(f"clip.{kind}", **CLIPS[kind])
    frames = _all(path, fps=None)
    assert [clips.number(frame.pixels.numpy()) for frame in frames] == list(range(60))
    assert frames[0].seconds == 0.0
    _assert_as_read(reader, path, frames)


def test_thinned_and_made_smaller(clips, reader: Reader) -> None:
    path = clips.write("clip.mp4")
    frames = _all(path, fps=5.0, max_side=80)
    assert [clips.number(frame.pixels.numpy()) for frame in frames] == list(range(0, 60, 5))
    assert [frame.seconds for frame in frames] == [float(scan(str(path)).seconds[n]) for n in range(0, 60, 5)]
    _assert_as_read(reader, path, frames, size=(48, 80))
    square = _all(path, fps=1.0, size=(64, 64))
    assert len(square) == 3
    _assert_as_read(reader, path, square, size=(64, 64))


@pytest.mark.parametrize("matrix", [(0, 1, -1, 0), (-1, 0, 0, 1), (0, 1, 1, 0)])
def test_display_matrices_are_applied(clips, reader: Reader, matrix: tuple[int, int, int, int]) -> None:
    path = clips.show_by(clips.write("clip.mp4", frames=10), matrix)
    _assert_as_read(reader, path, _all(path, fps=None))
    small = _all(path, fps=None, max_side=80)
    assert max(small[0].pixels.shape) == 80
    _assert_as_read(reader, path, small, size=tuple(small[0].pixels.shape[:2]))


def test_broken_frames_are_left_out_and_counted_as_the_reader_does(clips, reader: Reader) -> None:
    whole = clips.write("clip.mp4")
    path = clips.damage(whole, [17, 30], zeros=True)
    with open_live(path, paced=False, fps=None) as source:
        frames = take_all(source)
        stats = source.stats()
    numbers = [clips.number(frame.pixels.numpy()) for frame in frames]
    assert stats.broken >= 2
    assert stats.received + stats.broken >= 58
    assert set(numbers) < set(range(60))
    assert {*range(12), *range(36, 60)} <= set(numbers)  # all of the groups of frames without damage
    _assert_as_read(reader, path, frames)
    assert np.array_equal(frames[-1].pixels.numpy(), _all(whole, fps=None)[-1].pixels.numpy())


def test_a_cut_file_gives_what_is_there(clips, reader: Reader) -> None:
    path = clips.cut(clips.write("clip.ts"), 0.5)
    frames = _all(path, fps=None)
    numbers = [clips.number(frame.pixels.numpy()) for frame in frames]
    assert numbers[:24] == list(range(24))  # two whole groups of frames
    assert numbers[-1] < 40
    _assert_as_read(reader, path, frames)


def test_a_paced_file_comes_in_real_time_and_a_slow_taker_gets_the_newest(clips) -> None:
    path = clips.write("clip.mp4")
    began = time.monotonic()
    with open_live(path, fps=None) as source:
        frames = take(source, 1)
        first = time.monotonic() - began
        while not source.ended:
            time.sleep(0.3)  # slower than the camera
            if (frame := source.next(1.0)) is not None:
                assert time.monotonic() - began >= frame.seconds - 1e-3  # none before its time
                frames.append(frame)
            stats = source.stats()
            assert stats.received == stats.taken + stats.dropped + stats.waiting
    assert time.monotonic() - began >= 59 / 25
    assert stats.dropped > 0
    assert stats.received == 60
    assert frames[-1].seconds == pytest.approx(59 / 25)  # the last one is never the one that is dropped
    assert all(a.seconds < b.seconds for a, b in pairwise(frames))
    assert all(a.wall < b.wall for a, b in pairwise(frames))
    assert [clips.number(f.pixels.numpy()) for f in frames] == [round(f.seconds * 25) for f in frames]
    assert first < 59 / 25 or stats.taken < 60


def test_closing_in_mid_stream_ends_thread_and_process(clips) -> None:
    path = clips.write("clip.mp4")
    for paced in (True, False):
        source = open_live(path, paced=paced, fps=None)
        take(source, 1)
        source.close()
        source.close()
        assert source.ended
        assert source.stats().state == "closed"
        assert source.next(60) is None
    open_live(path).close()  # before its process has started


def test_a_file_that_is_no_video_fails_in_a_sentence(clips) -> None:
    text = clips.folder / "text.mp4"
    text.write_text("hello\n" * 1000)
    sound = clips.write_sound("sound.m4a")
    listing = clips.folder / "list.m3u8"
    listing.write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{clips.write('clip.ts')}\n#EXT-X-ENDLIST\n"
    )
    concat = clips.folder / "list.ffconcat"
    concat.write_text("ffconcat version 1.0\nfile 'clip.ts'\n")
    for path in (text, sound, listing, concat):
        with open_live(path, max_retries=9) as source:
            assert take_all(source) == []
            stats = source.stats()
        assert (stats.state, stats.reconnects) == ("failed", 0)
        assert str(path) in stats.reason
        assert "; allowed: " in stats.reason


def test_a_file_of_noise_fails(clips) -> None:
    whole = clips.write("clip.mp4", frames=20)
    path = clips.damage(whole, range(20), zeros=True)
    with open_live(path) as source:
        assert take_all(source) == []
        assert source.stats().state == "failed"
        assert source.stats().broken >= 20


def test_frames_over_the_limit_are_refused(clips) -> None:
    path = clips.write("clip.mp4", frames=10, size=(96, 160))
    with open_live(path, paced=False, max_pixels=96 * 160 - 1) as source:
        assert take_all(source) == []
        assert source.stats().state == "failed"
    assert len(_all(path, fps=None, max_pixels=96 * 160)) == 10


def test_a_missing_file_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="no such file"):
        open_live(tmp_path / "no.mp4")


def test_the_decoding_process_needs_no_torch() -> None:
    code = "import sys, videoprune.video.live.worker; print(sorted({'torch', 'decord'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
