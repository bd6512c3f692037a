"""Frames at another size.

Shapes: T frames, H x W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def resized(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 (T, H, W, 3) -> uint8 (T, h, w, 3), size being (h, w): bilinear with antialiasing. As they are where they
    have that size."""
    if tuple(frames.shape[1:3]) == tuple(size):
        return frames
    x = frames.permute(0, 3, 1, 2).float()
    x = F.interpolate(x, tuple(size), mode="bilinear", antialias=True)
    return x.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
