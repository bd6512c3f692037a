"""Pictures that were written are read again."""

from __future__ import annotations

import av
import numpy as np
import pytest

from videoprune.video import Reader, Sampling
from videoprune.video import write as module
from videoprune.video.write import write_mp4


def plain(level: int) -> np.ndarray:
    return np.full((32, 48, 3), level, np.uint8)


@pytest.mark.parametrize("only", [None, "mpeg4"])
def test_pictures_come_back_in_order(tmp_path, monkeypatch, only):
    if only:
        monkeypatch.setattr(module, "_ENCODERS", (only,))
    levels, path = [20, 90, 160, 230], tmp_path / "out.mp4"
    name = write_mp4(map(plain, levels), path, rate=2, repeat=3)
    assert name == (only or name) in ("libx264", "libopenh264", "mpeg4")
    with av.open(path) as container:
        seen = [f.to_ndarray(format="rgb24").mean() for f in container.decode(video=0)]
    assert seen == pytest.approx([x for x in levels for _ in range(3)], abs=4)
    with Reader() as reader:
        frames = reader.read(path, Sampling(max_frames=4))
    assert frames.outcome.kind == "complete"
    assert frames.duration_seconds == pytest.approx(2.0)


def test_mistakes_are_named(tmp_path):
    path = tmp_path / "out.mp4"
    with pytest.raises(ValueError, match="none; allowed"):
        write_mp4([], path, rate=1)
    with pytest.raises(ValueError, match=r"\(31, 48, 3\)"):
        write_mp4([plain(0)[:31]], path, rate=1)
    with pytest.raises(ValueError, match="one shape"):
        write_mp4([plain(0), plain(0)[:30]], path, rate=1)
    with pytest.raises(ValueError, match="rate=0"):
        write_mp4([plain(0)], path, rate=0)
    with pytest.raises((ValueError, OSError)):
        write_mp4([plain(0)], tmp_path / "no" / "folder" / "x.mp4", rate=1)
