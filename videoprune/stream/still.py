"""Whether a frame shows what another one shows, before anything is encoded.

Shapes: H x W pixels.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

_BLOCK = 8


def is_still(frame: Tensor, before: Tensor, least: float) -> bool:
    """Whether all blocks of 8 x 8 pixels of two frames, uint8 (H, W, 3), differ by less than `least` of 255 on average.

    A mean over the whole frame would miss what is small; single pixels differ by the camera's noise. Frames of other
    sizes are not alike.
    """
    if frame.shape != before.shape:
        return False
    apart = (frame.float() - before.float()).abs().mean(2)[None, None]  # (1, 1, H, W)
    block = (min(_BLOCK, apart.shape[2]), min(_BLOCK, apart.shape[3]))
    return float(F.avg_pool2d(apart, block, ceil_mode=True, count_include_pad=False).max()) < least
