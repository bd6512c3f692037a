"""Frames and times of intact clips, from both backends."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import av
import numpy as np
import pytest
from av.stream import Disposition

from videoprune.video import Backend, Reader, Sampling, VideoError, decord_reader
from videoprune.video.scan import scan

EXTRA: dict[str, dict[str, Any]] = {
    "mkv": {},
    "webm": {
        "codec": "libvpx-vp9",
        "options": {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"},
    },
    "avi": {"codec": "mpeg4"},
    "ts": {"tick": Fraction(1, 90_000), "pts": [3600 * (500 + i) for i in range(60)]},
    "mov": {"codec": "mjpeg", "pixel_format": "yuvj420p"},
}


def _numbers(clips, frames) -> list[int]:
    return [clips.number(pixels) for pixels in frames.pixels.numpy()]


def _middles(total: int, count: int) -> list[int]:
    return [int((k + 0.5) * total / count) for k in range(count)]


@pytest.mark.parametrize("backend", ["auto", "pyav"])
@pytest.mark.parametrize("kind", ["mp4", *EXTRA])
def test_uniform_frames_and_times_in_every_container(
    clips, reader: Reader, kind: str, backend: Backend
) -> None:
    path = clips.write(f"clip.{kind}", **EXTRA.get(kind, {}))
    frames = reader.read(path, Sampling(max_frames=7), backend=backend)
    first = _times(path)[0]
    assert _numbers(clips, frames) == _middles(60, 7)
    np.testing.assert_allclose(frames.pts_seconds, [first + i / 25 for i in _middles(60, 7)], atol=2e-3)
    assert frames.duration_seconds == pytest.approx(60 / 25, abs=0.02)
    assert frames.outcome.kind == "complete"
    assert frames.backend == ("pyav" if backend == "pyav" or kind in ("avi", "ts") else "decord")
    assert bool(frames.fallback_reason) == (backend == "auto" and kind in ("avi", "ts"))


def test_long_streams_are_not_decords(clips, monkeypatch: pytest.MonkeyPatch) -> None:
    found = scan(str(clips.write("clip.mp4")))
    monkeypatch.setattr(decord_reader, "_LONGEST", 59)
    assert decord_reader.why_unfit(found) == "decord takes too much memory for 60 frames"
    monkeypatch.setattr(decord_reader, "_LONGEST", 60)
    assert decord_reader.why_unfit(found) == ""


def _times(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [frame.time for frame in container.decode(video=0)]


@pytest.mark.parametrize("backend", ["decord", "pyav"])
def test_every_frame_comes_back_once_and_in_order(clips, reader: Reader, backend: Backend) -> None:
    frames = reader.read(clips.write("clip.mp4"), Sampling(max_frames=500), backend=backend)
    assert _numbers(clips, frames) == list(range(60))
    np.testing.assert_allclose(frames.pts_seconds, np.arange(60) / 25, atol=1e-6)


@pytest.mark.parametrize("backend", ["decord", "pyav"])
def test_variable_rate_and_late_start_keep_their_times(clips, reader: Reader, backend: Backend) -> None:
    pts = 8333 + np.cumsum([0, *np.random.default_rng(3).integers(10, 400, 59)])
    path = clips.write("vfr.mkv", pts=pts.tolist(), tick=Fraction(1, 1000))
    frames = reader.read(path, Sampling(max_frames=100), backend=backend)
    np.testing.assert_allclose(frames.pts_seconds, pts / 1000, atol=1e-6)
    asked = tuple((pts[[3, 17, 40]] / 1000 + 0.004).tolist())
    some = reader.read(path, Sampling("timestamps", timestamps=(*asked, 0.0)), backend=backend)
    assert _numbers(clips, some) == [0, 3, 17, 40]


@pytest.mark.parametrize("backend", ["decord", "pyav"])
def test_policies(clips, reader: Reader, backend: Backend) -> None:
    path = clips.write("clip.mp4")
    keys = reader.read(path, Sampling("keyframe"), backend=backend)
    assert _numbers(clips, keys) == [0, 12, 24, 36, 48]
    two_a_second = reader.read(path, Sampling("fps", 100, fps=2.0), backend=backend)
    assert _numbers(clips, two_a_second) == [0, 12, 25, 37, 50]


@pytest.mark.parametrize("size", [(96, 160), (48, 80), (97, 131), (224, 224), (14, 15)])
def test_backends_agree_at_any_size(clips, reader: Reader, size: tuple[int, int]) -> None:
    path = clips.write("odd.mp4", size=(97, 161), pixel_format="yuv444p")
    first = reader.read(path, size=size, backend="decord")
    second = reader.read(path, size=size, backend="pyav")
    assert first.pixels.shape == second.pixels.shape == (8, *size, 3)
    assert first.pts_seconds == second.pts_seconds
    assert (first.pixels.float() - second.pixels.float()).abs().mean() < 3


def test_without_a_size_backends_agree_exactly(clips, reader: Reader) -> None:
    path = clips.write("odd.mp4", size=(97, 161), pixel_format="yuv444p")
    first, second = reader.read(path, backend="decord"), reader.read(path, backend="pyav")
    assert first.pixels.shape == (8, 97, 161, 3)
    assert np.abs(first.pixels.numpy().astype(int) - second.pixels.numpy()).max() <= 1


def test_size_change_in_mid_stream_gives_one_size(clips, reader: Reader) -> None:
    path = clips.folder / "two.mkv"
    tick = Fraction(1, 25)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mjpeg", rate=25)
        stream.height, stream.width, stream.pix_fmt = 96, 160, "yuvj420p"
        for i in range(40):
            codec = av.CodecContext.create("mjpeg", "w")
            codec.height, codec.width = (96, 160) if i < 20 else (192, 320)
            codec.pix_fmt, codec.time_base = "yuvj420p", tick
            frame = av.VideoFrame.from_ndarray(clips.picture(i, codec.height, codec.width), format="rgb24")
            for packet in codec.encode(frame.reformat(format="yuvj420p")):
                packet.stream, packet.pts, packet.dts, packet.time_base = stream, i, i, tick
                output.mux(packet)
    every = Sampling(max_frames=40)
    first, second = reader.read(path, every, backend="decord"), reader.read(path, every, backend="pyav")
    assert first.pixels.shape == second.pixels.shape == (40, 96, 160, 3)
    assert _numbers(clips, first) == _numbers(clips, second) == list(range(40))


def test_of_two_streams_both_backends_read_the_default_one(clips, reader: Reader) -> None:
    path = clips.folder / "two_streams.mp4"
    with av.open(str(path), "w") as output:
        streams = []
        for height, width in ((48, 80), (96, 160)):
            stream = output.add_stream("mpeg4", rate=25)
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            streams.append(stream)
        streams[
            1
        ].disposition = Disposition.default.value  # PyAV 18 takes the name itself, earlier ones a number
        for i in range(10):
            for k, stream in enumerate(streams):
                image = clips.picture(i + 100 * k, stream.height, stream.width)
                output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        for stream in streams:
            output.mux(stream.encode(None))
    for backend in get_args(Backend):
        frames = reader.read(path, Sampling(max_frames=10), backend=backend)
        assert frames.pixels.shape[1:3] == (96, 160)
        assert _numbers(clips, frames) == list(range(100, 110))


def _edit_list(clips) -> Path:
    """An MP4 whose edit list hides the first 10 frames, as trimming tools write it."""
    return clips.write("edit.mp4", pts=list(range(-10, 50)), container={"avoid_negative_ts": "disabled"})


def _open_gop(clips) -> Path:
    return clips.write("open.mp4", codec="mpeg4", b_frames=2)


def _hidden_packets(clips) -> Path:
    """VP8 in which every tenth packet is not to be shown: bit 4 of its first byte is cleared."""
    quick = {"deadline": "realtime", "cpu-used": "8"}
    source = clips.write("shown.webm", codec="libvpx", options=quick, frames=30)
    path = clips.folder / "hidden.webm"
    with av.open(str(source)) as clip, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(clip.streams.video[0])
        for i, packet in enumerate(p for p in clip.demux(clip.streams.video[0]) if p.size):
            data = bytearray(bytes(packet))
            if i % 10 == 5:
                data[0] &= ~0x10
            copy = av.Packet(bytes(data))
            copy.stream, copy.time_base, copy.is_keyframe = stream, packet.time_base, packet.is_keyframe
            copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
            output.mux(copy)
    return path


@pytest.mark.parametrize(
    ("make", "numbers", "why"),
    [
        (_edit_list, list(range(10, 60)), "10 packets give no frame"),
        (_open_gop, list(range(60)), "open GOP"),
        (_hidden_packets, [i for i in range(30) if i % 10 != 5], "3 packets give no frame"),
    ],
)
def test_where_decord_would_miscount_pyav_answers(
    clips, reader: Reader, make, numbers: list, why: str
) -> None:
    path = make(clips)
    frames = reader.read(path, Sampling(max_frames=100))
    assert _numbers(clips, frames) == numbers
    assert (frames.backend, frames.outcome.kind) == ("pyav", "complete")
    assert why in frames.fallback_reason
    with pytest.raises(VideoError, match=f"open.mp4|edit.mp4|hidden.webm.*{why}") as caught:
        reader.read(path, backend="decord")
    assert caught.value.reason == "no_decoder"


def test_a_strange_file_name(clips, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    path = clips.write("clip.mp4").rename(clips.folder / "concat:ü %d.mp4")
    monkeypatch.chdir(clips.folder)
    frames = reader.read(path.name)
    assert (frames.path, frames.backend, len(frames)) == (path.name, "decord", 8)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"size": (0, 5)}, "size"),
        ({"size": (5, 5.5)}, "size"),
        ({"backend": "opencv"}, "backend"),
        ({"deadline_seconds": 0}, "deadline_seconds"),
        ({"deadline_seconds": float("inf")}, "deadline_seconds"),
    ],
)
def test_impossible_options_are_named(reader: Reader, options: dict, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}=.*allowed: "):
        reader.read("any.mp4", **options)
    with pytest.raises(ValueError, match="threads=0; allowed: "):
        Reader(threads=0)


def test_a_video_of_more_pixels_than_allowed_is_refused(clips, reader: Reader) -> None:
    path = clips.write("clip.mp4")
    assert len(reader.read(path, max_pixels=96 * 160)) == 8
    with pytest.raises(VideoError, match=r"96 x 160 pixels; allowed: 15359 in all") as caught:
        reader.read(path, max_pixels=96 * 160 - 1)
    assert caught.value.reason == "too_large"
