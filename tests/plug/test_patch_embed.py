"""The patch embedding as a product, against the convolution."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.plug.stock import stock_model
from tests.plug.test_apply import EVO, batch_for, config, run
from videoprune.plug.apply import apply, remove
from videoprune.plug.patch_embed import patch_products


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
    expected, active = conv(x), []
    (one,) = patch_products(nn.Sequential(conv), lambda: bool(active))
    assert one.conv is conv
    assert torch.equal(conv(x), expected), "outside a pass it is the convolution"
    active.append(True)
    product = conv(x)
    assert product.shape == expected.shape
    torch.testing.assert_close(product, expected, rtol=1e-12, atol=1e-12)
    one.replaced.undo()
    assert torch.equal(conv(x), expected)
    assert "forward" not in conv.__dict__


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
    assert patch_products(nn.Sequential(conv), lambda: True) == []
    assert "forward" not in conv.__dict__


def test_a_convolution_with_a_forward_of_its_own_is_left_alone():
    conv = nn.Conv2d(3, 8, 4, 4)
    conv.forward = own = conv.forward
    assert patch_products(nn.Sequential(conv), lambda: True) == []
    assert conv.forward is own


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl", "video_llama_3"])
@pytest.mark.parametrize("prune", ["none", config(encoder=EVO)], ids=["none", "evoprune"])
def test_pruned_models_embed_by_the_product_until_removed(kind, prune, monkeypatch):
    def convolve(*args):
        raise AssertionError("a convolution ran")

    model, (batch, _) = stock_model(kind), batch_for(kind, 1)
    for conv in (nn.Conv2d, nn.Conv3d):
        monkeypatch.setattr(conv, "forward", convolve)
    apply(model, prune)
    run(model, batch)
    run(model, batch, 2)
    remove(model)
    with pytest.raises(AssertionError, match="a convolution ran"):
        run(model, batch)
