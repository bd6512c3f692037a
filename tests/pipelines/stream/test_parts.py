"""Parts that need no server: grids, thumbnails, films that begin anew, files that may be opened."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines.stream.chat_request import Medium
from pipelines.stream.limits import Limits
from pipelines.stream.looped import LoopedFrames
from pipelines.stream.media import MediaDesk
from pipelines.stream.refused import Refused
from pipelines.stream.shown import covered, grid_of, shown
from pipelines.stream.streams import allowed_file
from pipelines.stream.thumbnails import Thumbnails
from videoprune.types import TimeStep
from videoprune.video.live import LiveFrame, SourceStats


@pytest.mark.parametrize(
    ("dense", "height", "width", "grid"),
    [
        (16, 96, 96, (4, 4)),
        (196, 384, 384, (14, 14)),
        (12, 96, 128, (3, 4)),
        (12, 128, 96, (4, 3)),
        (14 * 25, 392, 700, (14, 25)),
        (162, 112, 112, None),  # 49 + 64 + 49 of three encoders
        (7, 96, 96, None),
        (0, 96, 96, None),
    ],
)
def test_a_grid_fits_the_frame_or_there_is_none(dense, height, width, grid):
    assert grid_of(dense, height, width) == grid


@given(
    grids=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=3), data=st.data()
)
def test_a_place_is_covered_where_its_middle_lies_in_a_token(grids, data):
    total = sum(r * c for r, c in grids)
    place = data.draw(st.sets(st.integers(0, total - 1)))
    rows, columns = max(grids, key=lambda g: g[0] * g[1])
    expected = set()
    for row in range(rows):
        for column in range(columns):
            start = 0
            for r, c in grids:
                for p in place & set(range(start, start + r * c)):
                    top, left = divmod(p - start, c)
                    y, x = Fraction(2 * row + 1, 2 * rows) * r, Fraction(2 * column + 1, 2 * columns) * c
                    if top <= y < top + 1 and left <= x < left + 1:
                        expected.add(row * columns + column)
                start += r * c
    assert covered(sorted(place), grids) == tuple(sorted(expected))


def test_several_encoders_are_shown_on_the_finest_grid():
    step = TimeStep(
        torch.zeros(3, 2), torch.tensor([0, 4, 7]), torch.ones(3), 13, (0.0,), grids=((2, 2), (3, 3))
    )
    found = shown(1.0, True, torch.zeros(6, 6, 3, dtype=torch.uint8), step, None)
    assert (found.grid, found.tokens, found.dense) == ((3, 3), 3, 13)
    assert found.kept == (
        0,
        3,
    )  # of the coarse grid the corner, which covers (0, 0); of the fine one (0, 0) and (1, 0)
    assert found.as_dict(picture=False)["tokens"] == 3


def test_thumbnails_stay_few_and_keep_the_beginning():
    thumbnails = Thumbnails(8)
    assert thumbnails.nearest(0.0) is None
    for i in range(100):
        thumbnails.add(float(i), torch.full((90, 180, 3), i, dtype=torch.uint8))
    assert len(thumbnails._pictures) <= 8
    for asked in (-5.0, 0.0, 37.3, 99.0, 1e9):
        seconds, data = thumbnails.nearest(asked)
        assert seconds in thumbnails._seconds
        assert seconds == max((s for s in thumbnails._seconds if s <= asked), default=0.0)
        picture = np.array(Image.open(io.BytesIO(data)))
        assert picture.shape == (80, 160, 3)
        assert abs(int(picture.mean()) - seconds) <= 2


class Film:
    """Three frames and an end."""

    def __init__(self, frames: int = 3) -> None:
        self._frames: Iterator[int] = iter(range(frames))
        self._taken, self.over, self.closed = 0, False, False

    def next(self, timeout: float) -> LiveFrame | None:
        number = next(self._frames, None)
        if number is None:
            self.over = True
            return None
        self._taken += 1
        return LiveFrame(torch.zeros(1, 1, 3, dtype=torch.uint8), number / 2, 0.0)

    @property
    def ended(self) -> bool:
        return self.over

    def stats(self) -> SourceStats:
        return SourceStats("ended" if self.over else "live", received=self._taken, taken=self._taken)

    def close(self) -> None:
        self.closed = True


def test_a_film_begins_anew_and_its_seconds_ascend():
    films: list[Film] = []

    def open_film() -> Film:
        films.append(Film())
        return films[-1]

    looped = LoopedFrames(open_film)
    found = [looped.next(0.0) for _ in range(12)]
    assert [f.seconds for f in found if f] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0]
    assert looped.stats().taken == 9
    assert not looped.ended
    assert [f.closed for f in films] == [True] * 3 + [False]
    looped.close()
    assert films[-1].closed


def test_a_film_without_a_frame_is_not_opened_for_ever():
    films: list[Film] = []

    def open_film() -> Film:
        films.append(Film(0))
        return films[-1]

    looped = LoopedFrames(open_film)
    assert [looped.next(0.0) for _ in range(5)] == [None] * 5
    assert looped.ended
    assert len(films) == 1


def test_files_are_those_of_one_folder(tmp_path: Path):
    inside, outside = tmp_path / "open", tmp_path / "secret.mp4"
    (inside / "sub").mkdir(parents=True)
    (inside / "sub" / "a.mp4").write_bytes(b"a")
    outside.write_bytes(b"b")
    (inside / "link.mp4").symlink_to(outside)
    for path in ("sub/a.mp4", "sub/../sub/a.mp4", str(inside / "sub" / "a.mp4"), "file://sub/a.mp4"):
        assert allowed_file(path, inside.resolve()) == (inside / "sub" / "a.mp4").resolve()
    for path in ("../secret.mp4", str(outside), "link.mp4", "sub", "", "a\0b", "x" * 5000, "nothing.mp4"):
        with pytest.raises(Refused, match="no such file below the folder of --allow-files") as caught:
            allowed_file(path, inside.resolve())
        assert caught.value.status == 403
    with pytest.raises(Refused, match="no folder is open"):
        allowed_file("sub/a.mp4", None)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_limits_are_numbers_above_0(value):
    with pytest.raises(ValueError, match="streams="):
        Limits(streams=value)


def test_pictures_of_a_request_become_one_clip_of_bounded_size():
    def uri(height: int, width: int) -> Medium:
        out = io.BytesIO()
        Image.new("RGB", (width, height), (200, 0, 0)).save(out, "PNG")
        return Medium("image", f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}")

    class AnySize:
        num_frames, frame_size = 8, None

    desk = MediaDesk(AnySize(), Limits(), lambda url, file: None)  # type: ignore[arg-type]
    clip = desk.clip([uri(1500, 3000), uri(40, 30), uri(99, 99)])
    assert tuple(clip.pixels.shape) == (3, 512, 1024, 3)
    assert clip.pts_seconds == (0.0, 1.0, 2.0)
    assert clip.pixels.float().mean((0, 1, 2)).tolist() == [200.0, 0.0, 0.0]
    desk.close()
