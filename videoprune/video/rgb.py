"""From a decoded frame to upright RGB at the wanted size: the one way of all that decode with PyAV.

Shapes: H x W pixels, upright.
"""

from __future__ import annotations

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from videoprune.video.orientation import Orientation


def upright_rgb(
    frame: VideoFrame, turn: Orientation, size: tuple[int, int] | None, scaler: VideoReformatter
) -> NDArray[np.uint8]:
    """uint8 (H, W, 3), (H, W) being `size` or the frame's own. PyAV leaves the display matrix to the caller."""
    coded = (frame.height, frame.width)
    if size is not None:  # scaled as coded, to fit after the turn
        coded = size[::-1] if turn.transposed else size
    picture = scaler.reformat(
        frame, width=coded[1], height=coded[0], format="rgb24", interpolation=Interpolation.BILINEAR
    )
    return turn.upright(picture.to_ndarray())
