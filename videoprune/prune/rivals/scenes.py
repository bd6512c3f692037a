"""Scenes of a clip, as FlashVID and FastVID cut it: where adjacent frames differ most.

Shapes: T frames, n tokens of a frame, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from videoprune.prune.similarity import unit

_MOST = 8


def fewest(frames: int) -> int:
    """The least number of segments for a clip of so many frames: a quarter of them, 1 to 8.

    FlashVID's and FastVID's programs have 8 for 32 frames, and also for 64; FlashVID's has 4 for the 16 pairs of frames
    that Qwen-VL makes of 32. Of 8 frames 8 segments would be one each, and nothing could merge over time.
    """
    return max(1, min(_MOST, frames // 4))


def cut(x: Tensor, threshold: float, min_segments: int) -> list[tuple[int, int]]:
    """Segments (first, last): cuts where the mean tokens of adjacent frames have a cosine below `threshold`.

    With fewer than `min_segments`, also at the lowest of the others, as far as there are frames. x: (T, n, D).
    """
    u = unit(x.mean(dim=1, dtype=torch.promote_types(x.dtype, torch.float32)))  # (T, D)
    cosine = (u[1:] * u[:-1]).sum(dim=1)
    wanted = max(int((cosine < threshold).sum()), min(min_segments, x.shape[0]) - 1)
    starts = [0, *(cosine.argsort(stable=True)[:wanted].sort().values + 1).tolist()]
    return list(zip(starts, [*(s - 1 for s in starts[1:]), x.shape[0] - 1], strict=True))
