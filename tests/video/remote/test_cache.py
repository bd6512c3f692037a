"""The folder of fetched videos: its bound, what is used longest ago, several processes, and what is killed."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.video.remote.web import Web, promising, silent_after, status
from videoprune.video import VideoError
from videoprune.video.remote.address import Stored
from videoprune.video.remote.cache import VideoCache, _name
from videoprune.video.remote.options import RemoteOptions

ROOT = Path(__file__).parents[3]


def options(folder: Path, size: int = 100, largest: int = 60, **more: Any) -> RemoteOptions:
    return RemoteOptions(str(folder), size, largest, **{"seconds": 10.0, "pause": 0.01, **more})


def videos(folder: Path) -> list[int]:
    """Sizes of the whole files; nothing else may be there."""
    found = [p for p in folder.iterdir() if p.name != ".lock"]
    assert all(p.suffix == ".mp4" for p in found), found
    return sorted(p.stat().st_size for p in found)


def test_a_video_is_fetched_once_until_it_changes(web: Web, tmp_path: Path) -> None:
    address, cache = web.put("/a.mp4", b"one"), VideoCache(options(tmp_path))
    for _ in range(3):
        with cache.file(address) as path:
            assert (Path(path).read_bytes(), Path(path).suffix) == (b"one", ".mp4")
    assert len(web.gets) == 1
    web.put("/a.mp4", b"two", tag="2")
    with cache.file(address) as path:
        assert Path(path).read_bytes() == b"two"
    with cache.file(address, Stored(3, "ETag 2")) as path:  # as listed, so not asked again
        assert Path(path).read_bytes() == b"two"
    assert len(web.gets) == 2


def test_a_store_that_says_nothing_is_asked_each_time(web: Web, tmp_path: Path) -> None:
    address = web.put("/a.mp4", b"one", tag="")
    for body in (b"one", b"two"):
        web.put("/a.mp4", body, tag="")
        with VideoCache(options(tmp_path)).file(address) as path:
            assert Path(path).read_bytes() == body


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 7), st.sampled_from([10, 25, 60])), max_size=25))
def test_what_was_used_longest_ago_goes_first(
    tmp_path_factory: pytest.TempPathFactory, uses: list[tuple[int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    cache, fs = VideoCache(options(folder)), fsspec.filesystem("memory")
    oracle: OrderedDict[str, int] = OrderedDict()
    for step, (number, size) in enumerate(uses):
        address = f"memory://lru/{number}-{size}.mp4"
        fs.pipe(address, bytes(size))
        known = Stored(size, "t")
        with cache.file(address, known) as path:
            os.utime(path, ns=(step, step))  # the clock of files is coarser than this test is quick
        if address not in oracle:
            while sum(oracle.values()) + size > 100:
                oracle.popitem(last=False)
            oracle[address] = size
        oracle.move_to_end(address)
        os.utime(path, ns=(step, step))
        names = {p.name for p in folder.iterdir()} - {".lock"}
        assert names == {_name(a, Stored(s, "t")) for a, s in oracle.items()}


def test_nothing_in_use_is_removed(web: Web, tmp_path: Path) -> None:
    cache = VideoCache(options(tmp_path, seconds=1.0))
    a, b, c = (web.put(f"/{name}.mp4", bytes(50)) for name in "abc")
    with cache.file(a) as first:
        with cache.file(b), pytest.raises(VideoError) as caught, cache.file(c):
            pass
        assert caught.value.reason == "no_room"
        assert len(web.gets) == 2
        os.utime(first, ns=(0, 0))  # the oldest, but in use
        with cache.file(c):
            assert Path(first).read_bytes() == bytes(50)
        assert videos(tmp_path) == [50, 50]
    with cache.file(b):  # a goes
        assert not Path(first).exists()


def test_other_files_in_the_folder_are_left_alone(web: Web, tmp_path: Path) -> None:
    mine = tmp_path / "mine.mp4"
    mine.write_bytes(bytes(500))
    with VideoCache(options(tmp_path)).file(web.put("/a.mp4", bytes(60))):
        assert mine.stat().st_size == 500


@pytest.mark.parametrize("body", [b"", b"x"])
def test_what_fails_leaves_nothing(body: bytes, web: Web, tmp_path: Path) -> None:
    cache = VideoCache(options(tmp_path, tries=2))
    for name, answer in (("a", status(403)), ("b", status(500)), ("c", promising(40)), ("d", promising(61))):
        with pytest.raises(VideoError), cache.file(web.put(f"/{name}.mp4", body, answer)):
            pass
    assert videos(tmp_path) == []


def test_sizes_that_a_listing_tells_wrong(web: Web, tmp_path: Path) -> None:
    address = web.put("/a.mp4", bytes(50))
    with (
        pytest.raises(VideoError, match="50 bytes, 40 when") as caught,
        VideoCache(options(tmp_path)).file(address, Stored(40, "t")),
    ):
        pass
    assert caught.value.reason == "changed"


@pytest.mark.parametrize(
    "wrong",
    [{"size": 10}, {"largest": 0}, {"seconds": 0.0}, {"tries": 0}, {"pause": -1.0}, {"silent_seconds": 0}],
)
def test_impossible_options(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}="):
        RemoteOptions("folder", **{"size": 100, "largest": 60, **wrong})


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"folder=.*allowed: a folder to write in"):
        VideoCache(options(tmp_path / "file"))


# What other processes do: argv holds options, addresses and a seed as JSON.
USER = """
import json, random, sys, time
from videoprune.video.remote.cache import VideoCache
from videoprune.video.remote.options import RemoteOptions
told = json.loads(sys.argv[1])
cache, rng = VideoCache(RemoteOptions(**told["options"])), random.Random(told["seed"])
print("ready", flush=True)
for _ in range(told["uses"]):
    number = rng.randrange(len(told["addresses"]))
    with cache.file(told["addresses"][number]) as path:
        time.sleep(rng.random() * 0.01)
        data = open(path, "rb").read()
        assert data == bytes([number]) * told["size"], (number, len(data))
print("done", flush=True)
"""


def user(
    chosen: RemoteOptions, addresses: list[str], size: int, uses: int, seed: int
) -> subprocess.Popen[str]:
    told = {"options": asdict(chosen), "addresses": addresses, "size": size, "uses": uses, "seed": seed}
    return subprocess.Popen(
        [sys.executable, "-c", USER, json.dumps(told)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def taken(folder: Path) -> int:
    total = 0
    for entry in os.scandir(folder):
        try:
            total += (
                entry.stat().st_size if entry.name != ".lock" and not entry.name.endswith(".fetch") else 0
            )
        except FileNotFoundError:
            continue
    return total


def test_several_processes_share_a_folder_while_some_are_killed(web: Web, tmp_path: Path) -> None:
    """Room for three of eight videos. Each process checks every byte of what it is given; none may see a part."""
    size, rng = 200_000, random.Random(1)
    addresses = [web.put(f"/{i}.mp4", bytes([i]) * size) for i in range(8)]
    chosen = options(tmp_path, 3 * size, size, seconds=30.0)
    workers = [user(chosen, addresses, size, 40, seed) for seed in range(3)]
    doomed = [user(chosen, addresses, size, 10**6, 100)]
    most = 0
    while any(w.poll() is None for w in workers):
        most = max(most, taken(tmp_path))
        if rng.random() < 0.05 and len(doomed) < 6:
            doomed[-1].kill()
            doomed.append(user(chosen, addresses, size, 10**6, 100 + len(doomed)))
        time.sleep(0.02)
    doomed[-1].kill()
    for one in (*workers, *doomed):
        said, _ = one.communicate(timeout=20)
        assert one.returncode == (0 if one in workers else -signal.SIGKILL), said
    assert len(doomed) > 1
    # What a killed process was fetching is there until the next one makes room.
    assert 2 * size <= most <= 4 * size
    with VideoCache(chosen).file(web.put("/last.mp4", bytes(size))):
        assert taken(tmp_path) <= 3 * size
        assert set(videos(tmp_path)) == {size}


def test_who_waits_for_a_fetcher_takes_over_when_it_is_killed(web: Web, tmp_path: Path) -> None:
    size = 1000
    address = web.put("/a.mp4", bytes(size), silent_after(500, 30.0))
    chosen = options(tmp_path, size, size)
    first = user(chosen, [address], size, 1, 0)
    while not web.gets:
        time.sleep(0.02)
    web.put("/a.mp4", bytes(size))
    second = user(chosen, [address], size, 1, 0)
    assert second.stdout is not None
    assert second.stdout.readline() == "ready\n"
    time.sleep(0.5)
    assert second.poll() is None  # it waits
    assert len(web.gets) == 1
    first.kill()
    first.wait()
    said, _ = second.communicate(timeout=20)
    assert said == "done\n"
    assert len(web.gets) == 2
    assert videos(tmp_path) == [size]


def test_a_lock_that_nobody_lets_go(web: Web, tmp_path: Path) -> None:
    address, cache = web.put("/a.mp4", b"one"), VideoCache(options(tmp_path, seconds=0.5))
    path = tmp_path / _name(address, Stored(3, "ETag 1"))
    with ExitStack() as stack:
        lock = stack.enter_context(path.with_suffix(".fetch").open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX)
        with (
            pytest.raises(VideoError, match="another process did not have it"),
            cache.file(address),
        ):
            pass
    with cache.file(address):
        assert videos(tmp_path) == [3]
