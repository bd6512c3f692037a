"""The patch embedding as a product, against the convolution."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from videoprune.models.patch_embed import as_product, patch_convolutions


@pytest.mark.parametrize(
    ("conv", "shape"),
    [
        (nn.Conv3d(3, 8, (2, 4, 4), (2, 4, 4)), (5, 3, 2, 4, 4)),
        (nn.Conv3d(3, 8, (2, 4, 4), (2, 4, 4), bias=False), (5, 3, 2, 4, 4)),
        (nn.Conv2d(3, 8, 4, 4, padding="valid"), (5, 3, 4, 4)),
        (nn.Conv2d(3, 8, 4, 4), (0, 3, 4, 4)),
        (nn.Conv2d(3, 8, 4, 4), (2, 3, 12, 9)),  # whole frames: left to the convolution
    ],
)
def test_equals_the_convolution(conv, shape):
    conv, x = conv.double(), torch.randn(shape, dtype=torch.float64)
    assert patch_convolutions(nn.Sequential(conv)) == [conv]
    expected, product = conv(x), as_product(conv)(x)
    assert product.shape == expected.shape
    torch.testing.assert_close(product, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 8, 4, 2),
        nn.Conv2d(4, 8, 4, 4, padding=1),
        nn.Conv2d(4, 8, 4, 4, groups=2),
        nn.Conv2d(4, 8, 4, 4, dilation=2),
        nn.Conv1d(4, 8, 4, 4),
    ],
)
def test_other_convolutions_are_left_alone(conv):
    assert patch_convolutions(nn.Sequential(conv)) == []
