"""The patch embedding of packed encoders as one matrix product.

Qwen-VL and VideoLLaMA3 cut the patches before the model and embed each with a convolution whose kernel is the whole
patch. That is a product of (N, inputs) with (inputs, D); as a convolution in bfloat16 it took 0.8 s instead of 0.03 s
for the 6,272 patches of 16 frames of 448 x 448 pixels in Qwen3-VL-2B on two CPU cores.

Shapes: N patches, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from videoprune.plug.replacement import Replacement


class PatchProduct:
    """The forward of one convolution, for inputs of exactly one kernel, (N, C, *kernel), as rows of a product.

    owner: what `apply` put on the model. Outside its passes, and for other inputs, the convolution works as always.
    """

    def __init__(self, conv: nn.Conv2d | nn.Conv3d, active: Callable[[], bool]) -> None:
        self.conv, self.active = conv, active
        self.replaced = Replacement(conv, "forward", self.embed)

    def embed(self, stock: Callable[..., Tensor], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not self.active() or tuple(x.shape[2:]) != tuple(self.conv.kernel_size):
            return stock(x, *args, **kwargs)
        rows = F.linear(x.flatten(1), self.conv.weight.flatten(1), self.conv.bias)  # (N, D)
        return rows.view(*rows.shape, *[1] * (x.ndim - 2))


def patch_products(encoder: nn.Module, active: Callable[[], bool]) -> list[PatchProduct]:
    """Replace the convolutions of `encoder` that see each place once: stride as wide as the kernel, nothing around.

    One that has a `forward` of its own already is left alone: with offloaded weights (accelerate) only that one
    has them at hand.
    """
    return [
        PatchProduct(m, active)
        for m in encoder.modules()
        if isinstance(m, (nn.Conv2d, nn.Conv3d))
        and "forward" not in m.__dict__
        and tuple(m.stride) == tuple(m.kernel_size)
        and m.groups == 1
        and set(m.dilation) == {1}
        and m.padding in ((0,) * len(m.kernel_size), "valid")
    ]
