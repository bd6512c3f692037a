"""The patch embedding of packed encoders as one matrix product.

Qwen-VL and VideoLLaMA3 cut the patches before the model and embed each with a convolution whose kernel is the whole
patch. That is a product of (N, inputs) with (inputs, D); as a convolution in bfloat16 it took 0.8 s instead of 0.03 s
for the 6,272 patches of 16 frames of 448 x 448 pixels in Qwen3-VL-2B on two CPU cores.

Shapes: N patches, D width.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F


def patch_convolutions(encoder: nn.Module) -> list[nn.Conv2d | nn.Conv3d]:
    """Convolutions of `encoder` that see each place once: stride as wide as the kernel, nothing around."""
    return [
        m
        for m in encoder.modules()
        if isinstance(m, (nn.Conv2d, nn.Conv3d))
        and tuple(m.stride) == tuple(m.kernel_size)
        and m.groups == 1
        and set(m.dilation) == {1}
        and m.padding in ((0,) * len(m.kernel_size), "valid")
    ]


def as_product(conv: nn.Conv2d | nn.Conv3d) -> Callable[[Tensor], Tensor]:
    """A forward for `conv` that takes inputs of exactly one kernel, (N, C, *kernel), as rows of a product."""
    stock = conv.forward

    def forward(x: Tensor) -> Tensor:
        if tuple(x.shape[2:]) != tuple(conv.kernel_size):
            return stock(x)
        rows = F.linear(x.flatten(1), conv.weight.flatten(1), conv.bias)  # (N, D)
        return rows.view(*rows.shape, *[1] * (x.ndim - 2))

    return forward
