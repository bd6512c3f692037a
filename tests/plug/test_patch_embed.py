"""The patch embedding as a product, against the convolution."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.plug.stock import stock_model
from tests.plug.test_apply import batch_for, run
from videoprune.plug.apply import apply, remove
from videoprune.plug.patch_embed import as_product, patch_convolutions


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


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl", "video_llama_3"])
def test_pruned_models_embed_by_the_product_until_removed(kind, monkeypatch):
    def convolve(*args):
        raise AssertionError("a convolution ran")

    model, (batch, _) = stock_model(kind), batch_for(kind, 1)
    for conv in (nn.Conv2d, nn.Conv3d):
        monkeypatch.setattr(conv, "forward", convolve)
    apply(model, "none")
    run(model, batch)
    remove(model)
    with pytest.raises(AssertionError, match="a convolution ran"):
        run(model, batch)
