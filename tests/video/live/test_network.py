"""Streams over loopback, served well and badly."""

from __future__ import annotations

import io
import itertools
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import psutil
import pytest

from tests.video.live.conftest import live_processes
from tests.video.live.pictures import as_jpeg, grey
from tests.video.live.serving import (
    Server,
    Talk,
    file_server,
    folder_server,
    hold,
    mjpeg,
    part,
    request,
    rtsp,
)
from tests.video.live.taking import DEADLINE, take, take_all, wait_until
from videoprune.video.live import LiveFrame, open_live

pytestmark = pytest.mark.usefixtures("nothing_left")

QUICK: dict[str, Any] = {"fps": None, "first_wait": 0.05, "longest_wait": 0.2}


def _greys() -> Iterator[bytes]:
    """Parts of a stream without end whose pictures grow lighter: 2, 4, ..., 240, 2, ..."""
    parts = [part(as_jpeg(grey(value))) for value in range(2, 242, 2)]
    return itertools.cycle(parts)


def _url(server: Server, path: str = "stream") -> str:
    return f"http://127.0.0.1:{server.port}/{path}"


def _value(frame: LiveFrame) -> int:
    return round(float(frame.pixels.float().mean()))


def _assert_in_order(frames: list[LiveFrame]) -> None:
    assert all(a.seconds < b.seconds for a, b in pairwise(frames))
    assert all(f.wall <= time.time() for f in frames)


def test_mjpeg_over_http() -> None:
    with Server(mjpeg(_greys())) as server, open_live(_url(server), **QUICK, max_side=40) as source:
        frames = take(source, 12)
        stats = source.stats()
    assert (stats.state, stats.broken, stats.reconnects, stats.reason) == ("live", 0, 0, "")
    assert stats.received == stats.taken + stats.dropped + stats.waiting
    assert frames[0].pixels.shape == (24, 40, 3)
    assert _value(frames[0]) == pytest.approx(2, abs=2)
    assert all(a < b for a, b in pairwise(map(_value, frames)))
    _assert_in_order(frames)


def test_a_rate_thins_the_stream() -> None:
    with Server(mjpeg(_greys())) as server, open_live(_url(server), fps=10.0) as source:
        frames = take(source, 5)
        wait_until(source, lambda: source.stats().thinned > 5)
    assert len({int(frame.seconds * 10 + 1e-5) for frame in frames}) == 5


def test_a_source_that_stalls_is_connected_again() -> None:
    pictures = itertools.islice(_greys(), 10)
    talks: list[Talk] = [mjpeg(pictures, then=hold), mjpeg(_greys())]
    with (
        Server(lambda client: talks.pop(0)(client)) as server,
        open_live(_url(server), read_seconds=0.5, **QUICK) as source,
    ):
        frames = take(source, 3)
        wait_until(source, lambda: source.stats().state == "retrying")
        assert source.stats().reason == f"{_url(server)}: no data within 0.5 s"
        wait_until(source, lambda: source.stats().state == "live")
        frames += take(source, 3)
        assert source.stats().reconnects == 1
    _assert_in_order(frames)


def test_a_server_that_stops_and_comes_back_on_the_same_port() -> None:
    with Server(mjpeg(_greys())) as server, open_live(_url(server), **QUICK) as source:
        frames = take(source, 3)
        server.stop()
        wait_until(source, lambda: source.stats().reconnects >= 3)  # tries in vain
        assert source.stats().state == "retrying"
        assert "Connection refused" in source.stats().reason
        server.start()
        wait_until(source, lambda: source.stats().state == "live")
        frames += take(source, 3)
    _assert_in_order(frames)


def _cut_in_mid_frame() -> Talk:
    noise = as_jpeg(np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8))
    return mjpeg(itertools.chain(itertools.islice(_greys(), 6), [part(noise)[:900]]))


def _wrong_in_mid_stream() -> Talk:
    """Whole, cut, no JPEG, whole ones again: by length, so that only the pictures are wrong."""
    whole = [part(as_jpeg(grey(value))) for value in (20, 40, 60)]
    cut = part(as_jpeg(np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8))[:-300])
    return mjpeg(iter([*whole, cut, part(b"\xff\xd8 no picture"), part(b"junk"), *whole * 3]))


@pytest.mark.parametrize(("make", "broken"), [(_cut_in_mid_frame, 1), (_wrong_in_mid_stream, 3)])
def test_broken_pictures_are_dropped_and_counted(make: Callable[[], Talk], broken: int) -> None:
    talks = [make(), hold]
    with (
        Server(lambda client: talks.pop(0)(client)) as server,
        open_live(_url(server), open_seconds=0.3, max_retries=1, **QUICK) as source,
    ):
        frames = take_all(source)
        stats = source.stats()
    assert stats.broken == broken
    assert stats.received == (6 if broken == 1 else 12)
    assert stats.received == stats.taken + stats.dropped
    for frame in frames:  # none is half grey, and none a neighbour
        pixels = frame.pixels.numpy().astype(int)
        assert pixels.max() - pixels.min() <= 2


def _garbage(client: Any) -> None:
    request(client)
    client.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: video/mp4\r\n\r\n")
    client.sendall(np.random.default_rng(1).bytes(200_000))


def _not_found(client: Any) -> None:
    request(client)
    client.sendall(b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n")


def _web_page(client: Any) -> None:
    request(client)
    client.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n<html>hello</html>")


def _local_files(client: Any) -> None:
    """A playlist that names a file of the reader's machine."""
    request(client)
    client.sendall(
        b"HTTP/1.0 200 OK\r\nContent-Type: application/vnd.apple.mpegurl\r\n\r\n"
        b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
    )


def _huge_picture(client: Any) -> None:
    data = as_jpeg(grey(3))
    at = data.index(b"\xff\xc0") + 5
    huge = data[:at] + b"\xff\xff\xff\xff" + data[at + 4 :]
    mjpeg(itertools.repeat(part(huge), 30), every=0)(client)


@pytest.mark.parametrize(
    "talk", [_garbage, _not_found, _web_page, _local_files, _huge_picture, hold, lambda _: None]
)
def test_a_server_that_is_no_camera_is_tried_and_given_up(talk: Talk) -> None:
    with Server(talk) as server:
        with open_live(_url(server), open_seconds=0.5, read_seconds=0.5, max_retries=1, **QUICK) as source:
            assert take_all(source) == []
            stats = source.stats()
        assert (stats.state, stats.reconnects, stats.received) == ("failed", 1, 0)
        assert stats.reason.startswith(f"http://127.0.0.1:{server.port}/stream: ")
        assert stats.reason.endswith("; retries: 1")
        assert server.clients >= 2


def test_tries_are_apart_by_the_back_off() -> None:
    times: list[float] = []

    def refuse(client: Any) -> None:
        request(client)
        times.append(time.monotonic())

    with (
        Server(refuse) as server,
        open_live(_url(server), first_wait=0.2, longest_wait=0.4, max_retries=3) as source,
    ):
        take_all(source)
    tries = [time for time, before in zip(times, [-9.0, *times], strict=False) if time - before > 0.05]
    assert len(tries) == 4  # FFmpeg itself may ask twice in one try
    for wait, (a, b) in zip((0.2, 0.4, 0.4), pairwise(tries), strict=True):
        assert b - a >= wait / 2


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_close_ends_a_read_that_hangs(scheme: str) -> None:
    with Server(hold) as server:
        source = open_live(f"{scheme}://127.0.0.1:{server.port}/a", open_seconds=500.0, read_seconds=500.0)
        wait_until(source, lambda: server.clients > 0)
        waiting = threading.Thread(target=source.next, args=(DEADLINE,))
        waiting.start()
        closing = [threading.Thread(target=source.close) for _ in range(3)]
        for thread in closing:
            thread.start()
        for thread in (*closing, waiting):
            thread.join(30)
            assert not thread.is_alive()
        assert source.stats().state == "closed"


def test_a_child_that_dies_is_a_lost_connection() -> None:
    with Server(mjpeg(_greys())) as server, open_live(_url(server), **QUICK) as source:
        frames = take(source, 2)
        live_processes()[0].kill()
        wait_until(source, lambda: source.stats().reconnects == 1 and source.stats().state == "live")
        assert "crashed (signal 9)" in source.stats().reason
        frames += take(source, 2)
    _assert_in_order(frames)


def _film(clips, frames: int = 60) -> bytes:
    return clips.write("film.mp4", frames=frames, container={"movflags": "faststart"}).read_bytes()


def test_a_recording_over_http_comes_whole_at_the_takers_pace(clips) -> None:
    with (
        Server(file_server(_film(clips))) as server,
        open_live(_url(server, "film.mp4"), paced=False, fps=None) as source,
    ):
        frames = take_all(source)
        assert source.stats().state == "ended"
    assert [clips.number(f.pixels.numpy()) for f in frames] == list(range(60))
    assert [f.seconds for f in frames] == pytest.approx([n / 25 for n in range(60)])


def test_a_recording_that_breaks_off_goes_on_where_it_was(clips) -> None:
    data = _film(clips)
    cut = file_server(data, cut=lambda n: len(data) * 2 // 3 if n == 1 else len(data))
    with (
        Server(cut) as server,
        open_live(_url(server, "film.mp4"), paced=False, **QUICK) as source,
    ):
        frames = take_all(source)
        stats = source.stats()
    assert (stats.state, stats.reconnects) == ("ended", 1)
    assert "broke off" in stats.reason or "Input/output error" in stats.reason
    numbers = [clips.number(f.pixels.numpy()) for f in frames]
    assert numbers == [round(f.seconds * 25) for f in frames]
    assert set(range(60)) - set(numbers) <= set(range(20, 50))  # but for what leaned on the break
    assert len(numbers) == len(set(numbers)) > 50
    _assert_in_order(frames)


def test_a_live_stream_cannot_wait_for_its_taker() -> None:
    with Server(mjpeg(_greys())) as server, open_live(_url(server), paced=False) as source:
        assert take_all(source) == []
        assert "paced=False, but it is live; allowed: paced=True" in source.stats().reason
        assert source.stats().state == "failed"


def _ts(clips, frames: int = 50, first: int = 0) -> bytes:
    pts = [3600 * (first + n) for n in range(frames)]
    return clips.write("part.ts", frames=frames, tick=Fraction(1, 90_000), pts=pts).read_bytes()


def test_a_playlist_that_grows_plays_on(clips) -> None:
    parts = [_ts(clips, 25, 25 * k) for k in range(4)]
    asked = itertools.count(2)

    def playlist() -> bytes:
        """One more segment of a second each time that it is asked for."""
        last = min(next(asked), len(parts))
        lines = [f"#EXTINF:1.0,\n{k}.ts" for k in range(max(0, last - 3), last)]
        head = (
            f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:{max(0, last - 3)}\n"
        )
        return (head + "\n".join(lines) + "\n").encode()

    files: dict[str, Callable[[], bytes]] = {f"/{k}.ts": (lambda k=k: parts[k]) for k in range(4)}
    with (
        Server(folder_server({**files, "/live.m3u8": playlist})) as server,
        open_live(_url(server, "live.m3u8"), fps=5.0) as source,
    ):
        frames = take(source, 12)
        assert source.stats().state == "live"
    _assert_in_order(frames)
    steps = [b.seconds - a.seconds for a, b in pairwise(frames)]
    assert all(step < 0.45 for step in steps)  # segments come in bursts, their frames do not
    assert frames[-1].seconds - frames[0].seconds > 1.5


def _packets(data: bytes, pictures: int) -> Callable[[], Iterator[tuple[float, bytes]]]:
    """MPEG-TS in as many pieces as it has pictures, 40 ms apart."""
    step = 188 * max(1, len(data) // 188 // pictures)
    return lambda: ((0.04, data[at : at + step]) for at in range(0, len(data), step))


def test_rtsp_with_a_password_that_is_seen_nowhere(
    clips, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    seen = io.StringIO()
    stream = _packets(_ts(clips), 50)
    with Server(rtsp(stream, login="observer:s3cr/et")) as server:
        url = f"rtsp://observer:s3cr%2Fet@127.0.0.1:{server.port}/cam?key=t0ken"
        with open_live(url, **QUICK, max_retries=2) as source:
            frames = take(source, 10)
            commands = [" ".join(p.cmdline()) for p in psutil.Process().children(recursive=True)]
            names = [thread.name for thread in threading.enumerate()]
            wait_until(source, lambda: source.stats().state == "retrying")
            print(source, vars(source), source.stats(), commands, names, file=seen)
            server.stop()
            take_all(source)
            print(source.stats(), file=seen)
            assert source.stats().state == "failed"
            assert source.stats().reason.startswith(f"rtsp://127.0.0.1:{server.port}/cam: ")
    _assert_in_order(frames)
    assert clips.number(frames[-1].pixels.numpy()) > clips.number(frames[0].pixels.numpy())
    assert commands
    everything = seen.getvalue() + "".join(capfd.readouterr()) + caplog.text
    for secret in ("observer", "s3cr", "t0ken"):
        assert secret not in everything


def test_a_wrong_password_is_a_reason(clips) -> None:
    with (
        Server(rtsp(_packets(_ts(clips), 50), login="observer:right")) as server,
        open_live(f"rtsp://observer:wr0ng@127.0.0.1:{server.port}/cam", max_retries=0) as source,
    ):
        assert take_all(source) == []
        reason = source.stats().reason
    assert "authorization failed" in reason
    assert "wr0ng" not in reason


def test_rtsp_whose_times_start_anew_with_each_connection(clips) -> None:
    with (
        Server(rtsp(_packets(_ts(clips, 25), 25))) as server,
        open_live(f"rtsp://127.0.0.1:{server.port}/cam", **QUICK) as source,
    ):
        frames = take(source, 8)
        wait_until(source, lambda: source.stats().reconnects > 0 and source.stats().state == "live")
        frames += take(source, 8)
    _assert_in_order(frames)
    assert frames[-1].seconds - frames[0].seconds > 1.0


def test_no_camera_here_is_a_reason() -> None:
    """Only that the address gets there: no camera was at hand."""
    with open_live("v4l2:/dev/video987", max_retries=0) as source:
        assert take_all(source) == []
        assert source.stats().reason.startswith("/dev/video987: No such file or directory")


def test_a_caller_that_is_killed_leaves_no_process() -> None:
    script = (
        "import sys, time\n"
        "from videoprune.video.live import address, connection, fit, opening\n"
        "wanted = opening.Wanted(2.0, fit.Fit(), 1 << 20, True, 99.0, 99.0, time.monotonic())\n"
        "started = connection.Connection(address.parse_address(sys.argv[1]), wanted)\n"
        "for _ in started.messages(): print(started._process.pid, flush=True)\n"
    )
    with Server(mjpeg(itertools.islice(_greys(), 9), then=hold)) as server:
        caller = subprocess.Popen(
            [sys.executable, "-c", script, _url(server)], stdout=subprocess.PIPE, text=True
        )
        assert caller.stdout is not None
        with caller.stdout:
            child = psutil.Process(int(caller.stdout.readline()))
        caller.kill()
        caller.wait()
        assert psutil.wait_procs([child], timeout=DEADLINE)[1] == []
