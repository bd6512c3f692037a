"""Frames of a clip side by side in one image, as protocols that ask an image model about a video do.

Shapes: T frames, H x W pixels, R rows, C columns.
"""

from __future__ import annotations

from dataclasses import replace

import torch

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
    cells = pixels.view(rows, columns, height, width, 3).transpose(1, 2)  # (R, H, C, W, 3)
    image = cells.reshape(1, rows * height, columns * width, 3)
    return replace(frames, pixels=image, pts_seconds=frames.pts_seconds[:1])
