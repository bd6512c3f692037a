"""The newest frame of a stream with what is left of it, for drawing.

Shapes: H x W pixels; R x C places of a frame's dense grid.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from pipelines.stream.thumbnails import jpeg
from videoprune.types import TimeStep

_MOST_APART = 1.5  # of the grid's and the frame's aspect ratios


@dataclass(frozen=True)
class Shown:
    """pixels: uint8 (H, W, 3). new: whether it was encoded; else it shows what the one before showed.

    grid: R and C; None where the tokens lie on no one grid. kept: places, row by row, that have a token of their own.
    """

    seconds: float
    new: bool
    pixels: Tensor
    grid: tuple[int, int] | None
    kept: tuple[int, ...]
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
            "dense": self.dense,
        }
        return found | ({"picture": self.picture} if picture else {})


def shown(
    seconds: float, new: bool, pixels: Tensor, step: TimeStep | None, seen_as: tuple[int, int] | None
) -> Shown:
    """step: the newest that is held. seen_as: height and width that the model sees; None: those of the frame."""
    if step is None:
        return Shown(seconds, new, pixels, None, (), 0)
    height, width = seen_as or (pixels.shape[0], pixels.shape[1])
    grid = grid_of(step.dense, height, width)
    kept = tuple(step.place.tolist()) if grid else ()
    return Shown(seconds, new, pixels, grid, kept, step.dense)


def grid_of(dense: int, height: int, width: int) -> tuple[int, int] | None:
    """Rows and columns of so many square patches on a frame of this size; None where none fit: several encoders."""
    wanted = height / width
    sizes = [(rows, dense // rows) for rows in range(1, dense + 1) if dense % rows == 0]
    if not sizes:
        return None

    def apart(size: tuple[int, int]) -> float:
        ratio = size[0] / size[1] / wanted
        return max(ratio, 1 / ratio)

    best = min(sizes, key=apart)
    return best if apart(best) <= _MOST_APART else None
