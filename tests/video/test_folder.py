"""Videos by their names in folders here and elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path

import fsspec
import pytest

from tests.video.remote.web import shared
from videoprune.eval.benchmarks.folder import VideoFinder
from videoprune.video.folder import LocalFolder, video_folder
from videoprune.video.remote.address import Stored

NAMES = (
    "data/a.mp4",
    "data/b c.mkv",
    "data/1164/d.mp4",
    "videos/e.mp4",
    "f.mp4",
    "notes.txt",
    "data/ü%20.mp4",
)
STEMS = ("a", "b c", "1164/d", "d", "e", "f", "g", "notes", "ü%20")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(NAMES):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(number))
    return tmp_path


def check(address: str, folder: Path, places: tuple[str, ...]) -> None:
    """Finds the same videos as in the folder itself, and their paths open to the same bytes."""
    ends = (".mp4", ".mkv")
    here, there = (VideoFinder(f, places, ends) for f in (LocalFolder(folder), video_folder(address)))
    assert there.places == here.places
    for stem in STEMS:
        (local, lost), (remote, lost_there) = here.find("none", stem), there.find("none", stem)
        assert bool(lost) == bool(lost_there)
        assert remote.startswith(address)
        if not lost:
            with fsspec.open(remote, "rb") as file:
                assert file.read() == Path(local).read_bytes()


@pytest.mark.parametrize("places", [("data", "videos"), ("videos",), ("none",), ("videos", "data/1164")])
def test_a_remote_folder_is_as_a_local_one(folder: Path, places: tuple[str, ...]) -> None:
    fs = fsspec.filesystem("memory")
    fs.put(f"{folder}/", f"/{folder.name}/", recursive=True)
    check(f"memory://{folder.name}", folder, places)
    with shared(folder) as address:
        check(address, folder, places)


def test_what_a_listing_says_is_kept(folder: Path) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe("/kept/data/a.mp4", b"123")
    one = video_folder("memory://kept/")
    known = one.stored["memory://kept/data/a.mp4"]
    assert known.size == 3
    assert known.tag.startswith("created ")
    with shared(folder) as address:
        assert set(video_folder(address).stored.values()) == {Stored()}  # HTML has names alone


def test_this_machine_by_an_address(folder: Path) -> None:
    here = video_folder(f"file://{folder}")
    assert isinstance(here, LocalFolder)
    assert here.folder == folder
    assert VideoFinder(here, ("data",), (".mp4",)).find("a") == (str(folder / "data/a.mp4"), "")


def test_an_address_with_a_place_for_the_name_is_not_listed() -> None:
    one = video_folder("http://127.0.0.1:1/v/{}.webm?key={}")
    found = VideoFinder(one, ("data", "videos"), (".mp4",)).find("11 64/d", "d")
    assert found == ("http://127.0.0.1:1/v/11%2064/d.webm?key=11%2064/d", "")
    assert one.stored == {}


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("memory://nothing-is-here", "no files are listed there; allowed"),
        ("http://127.0.0.1:1/x", "cannot be listed|no files are listed"),
        ("nothing://x", "Protocol not known"),
    ],
)
def test_addresses_that_cannot_be_used(address: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        video_folder(address)


def test_without_fsspec_an_address_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(
        ValueError, match=r"s3://bucket: reading it needs fsspec; install videoprune\[remote\]"
    ):
        video_folder("s3://user:word@bucket")
    assert isinstance(video_folder("plain/folder"), LocalFolder)
