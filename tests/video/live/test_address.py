"""What may be opened, and that passwords stay where they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from videoprune.video import VideoError
from videoprune.video.live import open_live
from videoprune.video.live.address import parse_address


@pytest.mark.parametrize(
    ("url", "kind", "target", "name"),
    [
        ("rtsp://host/a", "rtsp", "rtsp://host/a", "rtsp://host/a"),
        ("RTSP://u:p@host:554/a?b=c#d", "rtsp", "rtsp://u:p@host:554/a?b=c#d", "rtsp://host:554/a"),
        ("rtsps://[::1]:322/", "rtsp", "rtsps://[::1]:322/", "rtsps://[::1]:322/"),
        ("http://h", "http", "http://h", "http://h"),
        ("https://u%40x:p%3A@h/x.m3u8?t=1", "http", "https://u%40x:p%3A@h/x.m3u8?t=1", "https://h/x.m3u8"),
        ("/dev/video0", "camera", "/dev/video0", "/dev/video0"),
        ("v4l2:/dev/video12", "camera", "/dev/video12", "/dev/video12"),
        ("v4l2:/dev/v4l/by-id/a_1.0-b", "camera", "/dev/v4l/by-id/a_1.0-b", "/dev/v4l/by-id/a_1.0-b"),
    ],
)
def test_addresses(url: str, kind: str, target: str, name: str) -> None:
    address = parse_address(url)
    assert (address.kind, address.target, address.name) == (kind, target, name)
    assert address.format == ("v4l2" if kind == "camera" else "")


BAD = [
    "",
    "udp://host:1/",
    "rtmp://host/a",
    "file:///etc/passwd",
    "concat:a.mp4|b.mp4",
    "data:video/mp4;base64,AAAA",
    "pipe:0",
    "subfile,,start,0,end,9,,:/etc/passwd",
    "rtsp:host/a",
    "rtsp:///a",
    "http://",
    "http://:80/",
    "http://secret:secret@/x",
    "http://secret@h:port/x",
    "http://h:99999/secret",
    "http://h/a b?secret",
    "http://h/a\r\nsecret: x",
    "http://h/\0secret",
    "http://[::1/secret",
    "http://h/" + "a" * 5000,
    "v4l2:0",
    "v4l2:/etc/passwd",
    "v4l2:/dev/../etc/passwd",
    "/dev/video",
    "/dev/video0/../../etc/passwd",
]


@pytest.mark.parametrize("url", BAD)
def test_what_is_no_source_is_refused_and_nothing_secret_repeated(url: str) -> None:
    with pytest.raises(ValueError, match=r"allowed: |no such file") as caught:
        open_live(url)
    assert "secret" not in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    for path, reason in (
        (tmp_path / "no.mp4", "missing"),
        (tmp_path / "empty.mp4", "empty"),
        (tmp_path, "not_a_video"),
    ):
        with pytest.raises(VideoError) as caught:
            open_live(path)
        assert caught.value.reason == reason


def test_a_file_with_the_name_of_a_scheme_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("concat:a").write_bytes(b"x")
    address = parse_address("concat:a")
    assert (address.kind, address.target) == ("file", os.path.join(os.path.realpath(tmp_path), "concat:a"))


def test_secrets_are_hidden_as_written_and_decoded() -> None:
    address = parse_address("rtsp://me%40home:p%3Aw@h:1/x?token=t0")
    assert "p%3Aw" not in repr(address)
    for text in (
        "rtsp://me%40home:p%3Aw@h:1/x?token=t0: refused",
        "login me%40home:p%3Aw failed",
        "login me@home:p:w failed",
        "password p:w, query token=t0",
    ):
        hidden = address.hide(text)
        assert not any(secret in hidden for secret in ("p%3Aw", "p:w", "me@home", "me%40home", "t0"))
    assert address.hide("nothing here") == "nothing here"
    assert parse_address("rtsp://u:t@h/").hide("not at home but") == "not at home but"


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"fps": 0}, "fps"),
        ({"fps": float("nan")}, "fps"),
        ({"max_side": 0}, "max_side"),
        ({"size": (0, 4)}, "size"),
        ({"size": (4,)}, "size"),
        ({"max_pixels": 0}, "max_pixels"),
        ({"open_seconds": 0}, "open_seconds"),
        ({"read_seconds": float("inf")}, "read_seconds"),
        ({"first_wait": 0}, "first"),
        ({"longest_wait": 0.1}, "first"),
        ({"max_retries": -1}, "max_retries"),
        ({"paced": False}, "paced"),
    ],
)
def test_impossible_options_are_named(options: dict, name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}=.*allowed: "):
        open_live("rtsp://127.0.0.1:1/", **options)
