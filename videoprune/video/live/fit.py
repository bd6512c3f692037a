"""How large the frames of a live source become.

Shapes: H x W pixels, upright.
"""

from __future__ import annotations

from dataclasses import dataclass

from av.video.frame import VideoFrame

from videoprune.video.orientation import Orientation


@dataclass(frozen=True)
class Fit:
    """max_side: frames with a longer side are made smaller, aspect kept; none is made larger.

    exact: (H, W) of all frames instead, as `Engine.frame_size` says it and `read` does it.
    """

    max_side: int = 768
    exact: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.max_side, int) or self.max_side < 1:
            raise ValueError(f"max_side={self.max_side}; allowed: a whole number of at least 1")
        if self.exact is not None and not (
            len(self.exact) == 2 and all(isinstance(n, int) and n >= 1 for n in self.exact)
        ):
            raise ValueError(
                f"size={self.exact}; allowed: None or (height, width), whole numbers of at least 1"
            )

    def size(self, frame: VideoFrame, turn: Orientation) -> tuple[int, int] | None:
        """(H, W) for an upright frame; None: as it is."""
        if self.exact is not None:
            return self.exact
        height, width = (frame.width, frame.height) if turn.transposed else (frame.height, frame.width)
        longer = max(height, width)
        if longer <= self.max_side:
            return None
        return tuple(max(1, round(n * self.max_side / longer)) for n in (height, width))  # type: ignore[return-value]
