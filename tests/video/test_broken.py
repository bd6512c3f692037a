"""Files that are cut, damaged, or no video at all."""

from __future__ import annotations

import pickle
from pathlib import Path

import av
import pytest

from videoprune.types import Outcome, VideoFrames
from videoprune.video import Backend, Reader, Sampling, VideoError


def _missing(clips) -> Path:
    return clips.folder / "nowhere.mp4"


def _folder(clips) -> Path:
    return clips.folder


def _empty(clips) -> Path:
    path = clips.folder / "empty.mp4"
    path.touch()
    return path


def _garbage(clips) -> Path:
    path = clips.folder / "garbage.mp4"
    path.write_bytes(bytes(range(256)) * 50)
    return path


def _text(clips) -> Path:
    path = clips.folder / "notes.txt"
    path.write_text("not a video\n" * 200)
    return path


def _subtitles(clips) -> Path:
    path = clips.folder / "words.srt"
    path.write_text("1\n00:00:01,000 --> 00:00:02,000\nhello\n")
    return path


def _sound(clips) -> Path:
    return clips.write_sound("sound.m4a")


def _headless(clips) -> Path:
    return clips.cut(clips.write("clip.mp4"), 0.6)  # the index is at the end of the file


def _timeless(clips) -> Path:
    return clips.write("raw.h264")


def _all_damaged(clips) -> Path:
    return clips.damage(clips.write("clip.mp4"), range(60), zeros=True)


def _unknown_codec(clips) -> Path:
    path = clips.write("clip.mp4")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"avc1", b"zzzz"))
    return path


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_missing, "missing"),
        (_folder, "not_a_video"),
        (_empty, "empty"),
        (_garbage, "not_a_video"),
        (_text, "not_a_video"),
        (_subtitles, "not_a_video"),
        (_sound, "audio_only"),
        (_headless, "corrupt"),
        (_timeless, "corrupt"),
        (_all_damaged, "corrupt"),
        (_unknown_codec, "no_decoder"),
    ],
)
@pytest.mark.parametrize("backend", ["auto", "pyav"])
def test_one_clear_error_each(clips, reader: Reader, make, reason: str, backend: Backend) -> None:
    path = make(clips)
    with pytest.raises(VideoError) as caught:
        reader.read(path, backend=backend)
    assert caught.value.reason == reason
    assert str(path) in str(caught.value)
    outcome = reader.try_read(path, backend=backend)
    assert outcome == Outcome("failed", reason=f"{reason}: {caught.value}")


def test_the_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(VideoError("empty", "clip.mp4: the file is empty")))
    assert (error.reason, str(error)) == ("empty", "clip.mp4: the file is empty")
    assert isinstance(error, ValueError)


@pytest.mark.parametrize("backend", ["auto", "pyav"])
@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.avi"])
def test_a_cut_file_gives_what_is_there(clips, reader: Reader, name: str, backend: Backend) -> None:
    front = {"movflags": "faststart"} if name.endswith("mp4") else {}  # the index first, then the frames
    whole = clips.write(name, codec="mpeg4", container=front)
    path = clips.cut(whole, 0.6)
    frames = reader.try_read(path, Sampling(max_frames=100), backend=backend)
    assert isinstance(frames, VideoFrames)
    numbers = [clips.number(pixels) for pixels in frames.pixels.numpy()]
    assert numbers == list(range(len(numbers)))
    assert 10 < len(numbers) < 59
    assert (frames.backend, frames.outcome.kind) == ("pyav", "truncated")
    assert frames.outcome.last_pts == frames.pts_seconds[-1]
    assert "ends before" in frames.outcome.reason
    fewer = reader.read(path, Sampling(max_frames=4), backend=backend)
    assert (len(fewer), fewer.outcome.kind) == (4, "truncated")
    assert reader.read(whole).outcome.kind == "complete"


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_a_cut_between_two_packets_is_noticed(clips, reader: Reader, name: str) -> None:
    """No packet is broken then: only the header knows that there was more."""
    front = {"movflags": "faststart"} if name.endswith("mp4") else {}
    whole = clips.write(name, codec="mpeg4", container=front)
    path = clips.cut(whole, clips.packets(whole)[40][0] / whole.stat().st_size)
    frames = reader.read(path, Sampling(max_frames=100))
    assert [clips.number(pixels) for pixels in frames.pixels.numpy()] == list(range(40))
    assert frames.outcome.kind == "truncated"


@pytest.mark.parametrize("backend", ["auto", "pyav"])
@pytest.mark.parametrize("zeros", [True, False])
@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_damage_in_the_middle_loses_frames_but_never_repeats_any(
    clips, reader: Reader, codec: str, zeros: bool, backend: Backend
) -> None:
    path = clips.damage(clips.write("clip.mp4", codec=codec), range(26, 30), zeros=zeros)
    frames = reader.read(path, Sampling(max_frames=100), backend=backend)
    numbers = [clips.number(pixels) for pixels in frames.pixels.numpy()]
    assert numbers == [round(25 * t) for t in frames.pts_seconds]
    assert set(range(24)) | set(range(36, 60)) <= set(numbers)  # the groups before and after the damaged one
    assert not set(range(30, 35)) & set(numbers)  # what follows the damage in its group leans on it
    assert frames.backend == "pyav"
    assert frames.outcome.kind == "truncated"
    assert f"{60 - len(numbers)} frames could not be decoded" in frames.outcome.reason
    assert frames.outcome.errors >= 1
    assert "decord" in frames.fallback_reason or backend == "pyav"


@pytest.mark.parametrize("backend", ["auto", "pyav"])
def test_a_recording_that_starts_between_keyframes_begins_at_the_first(
    clips, reader: Reader, backend: Backend
) -> None:
    path = clips.folder / "late.mkv"
    with av.open(str(clips.write("clip.mkv", codec="mpeg4"))) as clip, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(clip.streams.video[0])
        for packet in [p for p in clip.demux(clip.streams.video[0]) if p.size][5:]:
            packet.stream = stream
            output.mux(packet)
    frames = reader.read(path, Sampling(max_frames=100), backend=backend)
    assert [clips.number(pixels) for pixels in frames.pixels.numpy()] == list(range(12, 60))
    assert (frames.backend, frames.outcome.kind) == ("pyav", "complete")


def test_damage_elsewhere_does_not_touch_the_frames_wanted(clips, reader: Reader) -> None:
    path = clips.damage(clips.write("clip.mp4"), range(26, 30), zeros=True)
    frames = reader.read(path, Sampling("timestamps", timestamps=(0.2, 2.0)))
    assert [clips.number(pixels) for pixels in frames.pixels.numpy()] == [5, 50]
    assert (frames.outcome.kind, frames.outcome.errors) == ("complete", 0)


@pytest.mark.parametrize("url", ["https://host/clip.mp4", "rtsp://host:554/live", "file:///clip.mp4"])
def test_urls_are_refused_in_a_sentence(reader: Reader, url: str) -> None:
    for path in (url, Path(url)):  # pathlib makes `https:/host` of it
        with pytest.raises(ValueError, match=r"^path='\w+:/.*URLs are not read; allowed: the path of a file"):
            reader.read(path)
    assert isinstance(failed := reader.try_read(url), Outcome)
    assert failed.reason.startswith("url: path=")


@pytest.mark.parametrize("name", ["-clip.mp4", "--help", "https:/clip.mp4"])
def test_any_name_of_a_file_is_read(
    clips, reader: Reader, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clips.folder)
    Path("https:").mkdir()
    clips.write("clip.mp4", frames=8).rename(name)
    assert reader.read(name).path == name
