"""Frames by number alone, grids of frames, and what a header says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from videoprune.eval.benchmarks.moving_shapes.make import make_benchmark
from videoprune.types import VideoFrames
from videoprune.video import Sampling, VideoError, frame_indices
from videoprune.video.grid import grid_view
from videoprune.video.header import stream_header
from videoprune.video.sample import counted_indices


def chosen(frames: int, count: int, policy: str) -> list[int]:
    times = np.arange(frames) ** 1.5  # uneven: only numbers may matter
    return frame_indices(times, np.ones(frames, bool), Sampling(policy, count))  # type: ignore[arg-type]


def test_by_hand() -> None:
    assert chosen(101, 4, "middles") == [12, 37, 62, 87]  # runs of 25: (0+25)//2, (25+50)//2 ...
    assert chosen(10, 4, "middles") == [1, 3, 5, 8]  # bounds 0, 2.25, 4.5, 6.75, 9 round to 0 2 4 7 9
    assert chosen(101, 5, "ends") == [0, 25, 50, 75, 100]
    assert chosen(10, 4, "ends") == [0, 3, 6, 9]
    assert chosen(101, 6, "starts") == [0, 16, 32, 48, 64, 80]  # the last sixth is not seen
    for policy in ("middles", "ends", "starts"):
        assert chosen(5, 8, policy) == [0, 1, 2, 3, 4]
        assert chosen(1, 1, policy) == [0]


@pytest.mark.parametrize("policy", ["middles", "ends", "starts"])
@pytest.mark.parametrize("frames", [2, 7, 50, 1001])
def test_in_range_ascending_and_never_more_than_asked(policy: str, frames: int) -> None:
    for count in range(1, frames):
        found = counted_indices(frames, count, policy)
        assert found == sorted(set(found))
        assert found[0] >= 0 and found[-1] < frames  # noqa: PT018
        assert 1 <= len(found) <= count


def test_grid_against_loops() -> None:
    pixels = torch.randint(0, 200, (5, 3, 4, 3), dtype=torch.uint8)
    frames = VideoFrames(pixels, (0.0, 1.0, 2.0, 3.0, 4.0), 5.0, "x", "none")
    grid = grid_view(frames, 2)
    assert (tuple(grid.pixels.shape), grid.pts_seconds) == ((1, 9, 8, 3), (0.0,))
    for y in range(9):
        for x in range(8):
            place = (y // 3) * 2 + x // 4
            expected = pixels[place, y % 3, x % 4].tolist() if place < 5 else [255, 255, 255]
            assert grid.pixels[0, y, x].tolist() == expected
    with pytest.raises(ValueError, match="columns=0"):
        grid_view(frames, 0)


def test_header(tmp_path: Path) -> None:
    clips = make_benchmark(tmp_path / "clips", clips=1, size=32, fps=4, workers=1)
    path = next((clips / "data").glob("*.mp4"))
    assert stream_header(str(path)) == (16, 4.0)  # four seconds
    path.write_bytes(b"nothing")
    with pytest.raises(VideoError, match=path.name):
        stream_header(str(path))
