"""Frames of a clip side by side in one image, as protocols that ask an image model about a video do.

Shapes: T frames, H x W pixels, R rows, C columns.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from einops import rearrange

from videoprune.types import VideoFrames

WHITE = 255


def grid_view(frames: VideoFrames, columns: int) -> VideoFrames:
    """One image (1, R * H, C * W, 3): the frames row by row, white where the last row has none left.

    Its time is the first frame's. IG-VLM (Kim et al. 2024, section 3) shows six frames in two columns.
    Raises ValueError for fewer than one column.
    """
    if columns < 1:
        raise ValueError(f"columns={columns}; allowed: 1 or more")
    count, height, width, _ = frames.pixels.shape
    rows = -(-count // columns)
    pixels = torch.full((rows * columns, height, width, 3), WHITE, dtype=torch.uint8)
    pixels[:count] = frames.pixels
    image = rearrange(pixels, "(R C) H W rgb -> 1 (R H) (C W) rgb", C=columns)
    return replace(frames, pixels=image, pts_seconds=frames.pts_seconds[:1])
