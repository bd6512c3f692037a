"""The newest frame of a stream with what is left of it, for drawing.

Shapes: H x W pixels; R x C places of a frame's dense grid.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

from torch import Tensor

from pipelines.stream.thumbnails import jpeg
from videoprune.types import TimeStep

_MOST_APART = 1.5  # of the grid's and the frame's aspect ratios


@dataclass(frozen=True)
class Shown:
    """pixels: uint8 (H, W, 3). new: whether it was encoded; else it shows what the one before showed.

    grid: R and C, of several encoders the finest; None where there is none. kept: places, row by row, that have a token
    of their own, or lie in one. tokens: how many are left, of `dense`.
    """

    seconds: float
    new: bool
    pixels: Tensor
    grid: tuple[int, int] | None
    kept: tuple[int, ...]
    tokens: int
    dense: int

    @cached_property
    def picture(self) -> str:
        """The frame as a data URI."""
        return "data:image/jpeg;base64," + base64.b64encode(jpeg(self.pixels)).decode()

    def as_dict(self, *, picture: bool) -> dict[str, Any]:
        found: dict[str, Any] = {
            "type": "shown",
            "seconds": round(self.seconds, 3),
            "new": self.new,
            "grid": self.grid,
            "kept": self.kept,
            "tokens": self.tokens,
            "dense": self.dense,
        }
        return found | ({"picture": self.picture} if picture else {})


def shown(
    seconds: float, new: bool, pixels: Tensor, step: TimeStep | None, seen_as: tuple[int, int] | None
) -> Shown:
    """step: the newest that is held. seen_as: height and width that the model sees; None: those of the frame."""
    if step is None:
        return Shown(seconds, new, pixels, None, (), 0, 0)
    if step.grids:
        grid: tuple[int, int] | None = max(step.grids, key=math.prod)
        kept = covered(step.place.tolist(), step.grids)
    else:
        height, width = seen_as or (pixels.shape[0], pixels.shape[1])
        grid = grid_of(step.dense, height, width)
        kept = tuple(step.place.tolist()) if grid else ()
    return Shown(seconds, new, pixels, grid, kept, len(step), step.dense)


def covered(place: Sequence[int], grids: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Places of the finest of several grids over one frame whose middle lies in a place of any.

    place: among those of all grids behind each other.
    """
    left, (rows, columns) = set(place), max(grids, key=math.prod)
    starts = list(accumulate((math.prod(g) for g in grids), initial=0))

    def holds(at: int) -> bool:
        row, column = divmod(at, columns)
        within = (  # in whole numbers: the middle is at (2 i + 1) / (2 n)
            start + (2 * row + 1) * r // (2 * rows) * c + (2 * column + 1) * c // (2 * columns)
            for start, (r, c) in zip(starts, grids, strict=False)
        )
        return any(p in left for p in within)

    return tuple(at for at in range(rows * columns) if holds(at))


def grid_of(dense: int, height: int, width: int) -> tuple[int, int] | None:
    """Rows and columns of so many square patches on a frame of this size; None where none fit."""
    wanted = height / width
    sizes = [(rows, dense // rows) for rows in range(1, dense + 1) if dense % rows == 0]
    if not sizes:
        return None

    def apart(size: tuple[int, int]) -> float:
        ratio = size[0] / size[1] / wanted
        return max(ratio, 1 / ratio)

    best = min(sizes, key=apart)
    return best if apart(best) <= _MOST_APART else None
