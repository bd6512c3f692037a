"""One file over HTTP, from servers that lie, hang, break off and recover."""

from __future__ import annotations

import errno
import random
import time
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from tests.video.remote.web import Answer, Web, dripping, endless, promising, silent_after, status, whole
from videoprune.video import VideoError
from videoprune.video.remote.address import Stored, shown
from videoprune.video.remote.fetch import facts, fetch, permanent
from videoprune.video.remote.options import RemoteOptions

BODY = random.Random(0).randbytes(3_000_001)
QUICK = RemoteOptions("", 2**24, 2**23, seconds=20.0, silent_seconds=0.6, pause=0.01)


def fetched(address: str, folder: Path, known: Stored | None = None, options: RemoteOptions = QUICK) -> bytes:
    end = time.monotonic() + options.seconds
    part = fetch(address, folder / "key.mp4", known or Stored(), options, end)
    assert list(folder.iterdir()) == [part]
    return part.read_bytes()


def reason(
    address: str, folder: Path, known: Stored | None = None, options: RemoteOptions = QUICK
) -> VideoError:
    with pytest.raises(VideoError) as caught:
        fetched(address, folder, known, options)
    assert list(folder.iterdir()) == []  # nothing is left
    assert shown(address) in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    "first",
    [status(500), status(503), status(429), promising(len(BODY) + 1), silent_after(2_000_000)],
    ids=["500", "503", "429", "breaks off", "falls silent"],
)
def test_what_passes_is_tried_again(first: Answer, web: Web, tmp_path: Path) -> None:
    address = web.put("/a.mp4", BODY, first, first, whole)
    assert fetched(address, tmp_path) == BODY
    assert len(web.gets) == 3


@pytest.mark.parametrize(
    ("code", "kind", "gets"),
    [
        (404, "missing", 1),
        (410, "missing", 1),
        (401, "forbidden", 1),
        (403, "forbidden", 1),
        (405, "refused", 1),
        (500, "unreachable", 4),
        (400, "unreachable", 4),
    ],
)
def test_what_does_not_pass_is_told_at_once(
    code: int, kind: str, gets: int, web: Web, tmp_path: Path
) -> None:
    error = reason(web.put("/a.mp4", BODY, status(code)), tmp_path)
    assert (error.reason, len(web.gets)) == (kind, gets)
    assert ("(4 tries)" in str(error)) == (gets == 4)


def test_nobody_there(tmp_path: Path) -> None:
    error = reason("http://127.0.0.1:1/a.mp4", tmp_path, options=replace(QUICK, tries=2))
    assert error.reason == "unreachable"
    assert str(error).endswith("(2 tries)")


def test_a_file_is_as_large_as_is_allowed(web: Web, tmp_path: Path) -> None:
    exact = replace(QUICK, largest=len(BODY))
    address = web.put("/a.mp4", BODY)
    assert fetched(address, tmp_path, options=exact) == BODY
    (tmp_path / next(tmp_path.iterdir())).unlink()
    web.gets.clear()
    less = replace(QUICK, largest=len(BODY) - 1)
    assert reason(address, tmp_path, options=less).reason == "too_large"
    assert len(web.gets) == 1
    assert reason(address, tmp_path, Stored(len(BODY), "t"), less).reason == "too_large"
    assert len(web.gets) == 1  # not even asked for
    assert reason(web.put("/b.mp4", BODY, endless), tmp_path, options=less).reason == "too_large"


def test_lengths_that_lie(web: Web, tmp_path: Path) -> None:
    more = reason(
        web.put("/a.mp4", BODY, promising(len(BODY) + 5)), tmp_path, options=replace(QUICK, tries=2)
    )
    assert more.reason == "unreachable"
    huge = reason(web.put("/b.mp4", BODY, promising(10**12)), tmp_path)
    assert huge.reason == "too_large"
    less = reason(web.put("/c.mp4", BODY, promising(1000)), tmp_path, Stored(len(BODY), "t"))
    assert less.reason in ("unreachable", "changed")  # as the first packet has more than that or not
    listed = reason(web.put("/d.mp4", BODY), tmp_path, Stored(1000, "t"))
    assert listed.reason == "changed"
    assert "3,000,001 bytes, 1,000 when it was listed" in str(listed)


def test_a_slow_one_has_its_time_and_no_more(web: Web, tmp_path: Path) -> None:
    address = web.put("/a.mp4", bytes(20), dripping(0.1))
    assert fetched(address, tmp_path) == bytes(20)  # 2 s, but never silent for 0.6
    next(tmp_path.iterdir()).unlink()
    began = time.monotonic()
    late = reason(address, tmp_path, options=replace(QUICK, seconds=1.0))
    assert 1.0 <= time.monotonic() - began < 1.8
    assert "not there within 1 s" in str(late)
    mute = reason(web.put("/b.mp4", BODY, silent_after(0)), tmp_path, options=replace(QUICK, tries=2))
    assert "no byte for 0.6 s (2 tries)" in str(mute)


def test_a_request_that_was_left_behind_writes_nothing_more(web: Web, tmp_path: Path) -> None:
    """Its answer goes on after the next one has begun."""
    address = web.put("/a.mp4", BODY, silent_after(1_000_000, 1.2), whole)
    assert fetched(address, tmp_path) == BODY
    time.sleep(1.0)
    (only,) = tmp_path.iterdir()
    assert only.read_bytes() == BODY


def test_facts_are_what_the_store_says(web: Web) -> None:
    address = web.put("/a.mp4", BODY, tag="abc")
    end = time.monotonic() + 5
    assert facts(address, QUICK, end) == Stored(len(BODY), "ETag abc")
    assert facts(f"{web.address}/none.mp4", QUICK, end) == Stored()
    assert facts("http://127.0.0.1:1/a.mp4", QUICK, end) == Stored()


def test_other_file_systems(tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe("/fetch/a.mp4", BODY)
    assert fetched("memory://fetch/a.mp4", tmp_path) == BODY
    next(tmp_path.iterdir()).unlink()
    assert reason("memory://fetch/none.mp4", tmp_path).reason == "missing"
    assert reason("memory://fetch", tmp_path).reason == "missing"
    assert reason("memory://fetch/a.mp4", tmp_path, options=replace(QUICK, largest=10)).reason == "too_large"


class WithResponseError(Exception):
    """As botocore and requests tell."""

    def __init__(self, response: object) -> None:
        super().__init__()
        self.response = response


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (WithResponseError({"ResponseMetadata": {"HTTPStatusCode": 403}}), "forbidden"),
        (WithResponseError({"ResponseMetadata": {"HTTPStatusCode": 503}}), None),
        (WithResponseError(type("R", (), {"status_code": 404})()), "missing"),
        (type("HttpError", (Exception,), {"code": 403})(), "forbidden"),
        (type("NoCredentialsError", (Exception,), {})(), "forbidden"),
        (OSError(errno.ENOSPC, "full"), "no_room"),
        (OSError(errno.EBUSY, "slow down"), None),
        (TimeoutError(), None),
        (ConnectionResetError(), None),
        (ImportError("s3fs"), "refused"),
        (ValueError("Invalid bucket name"), "refused"),
    ],
)
def test_errors_of_other_libraries(error: Exception, kind: str | None) -> None:
    assert permanent(error) == kind
    outer = OSError(5, "wrapped")
    outer.__cause__ = error
    assert permanent(outer) == kind


def test_secrets_are_not_shown(web: Web, tmp_path: Path) -> None:
    address = web.put("/a.mp4?sig=secret", BODY, status(403))
    assert "secret" not in str(reason(address, tmp_path))
    assert shown("s3://key:word@host/a?b") == "s3://host/a"
    assert shown("https://host/a@b.mp4") == "https://host/a@b.mp4"
