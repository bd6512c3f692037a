"""Frames at another size, one by one and together."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from videoprune.resizing import resized


def test_each_frame_is_resized_by_itself():
    frames = torch.randint(
        0, 256, (3, 20, 30, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    together = resized(frames, (9, 14))
    assert together.shape == (3, 9, 14, 3)
    assert together.dtype == torch.uint8
    for one, frame in zip(together, frames, strict=True):
        assert torch.equal(one, resized(frame[None], (9, 14))[0])
        for channel in range(3):
            x = frame[None, None, :, :, channel].double()
            exact = F.interpolate(x, (9, 14), mode="bilinear", antialias=True)[0, 0]
            assert (one[..., channel].double() - exact).abs().max() <= 0.5 + 1e-3


def test_of_its_size_it_stays_as_it_is():
    frames = torch.zeros(2, 5, 6, 3, dtype=torch.uint8)
    assert resized(frames, (5, 6)) is frames
