"""VidCom2, Video Compression Commander (arXiv 2505.14454): unlike frames get more, unlike tokens stay.

Shapes: T frames, n tokens of a frame, D width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from videoprune.prune.budget import allocate
from videoprune.prune.rivals.choose import top_mask
from videoprune.prune.rivals.tokens import ClipTokens, over_clip, plan_of_kept
from videoprune.prune.similarity import unit
from videoprune.types import KeepPlan


@over_clip("Video Compression Commander, arXiv 2505.14454")
def vidcom2(
    clip: ClipTokens,
    keep: int,
    *,
    temperature: float = 0.01,
    kernel: Literal["cosine", "gaussian"] = "cosine",
    generator: torch.Generator | None = None,
) -> KeepPlan:
    """Frame uniqueness sets each frame's budget, token uniqueness within clip and frame ranks its tokens.

    A token's uniqueness in the clip is minus its similarity to the clip's mean token, in the frame minus that
    to the frame's mean token. A frame's uniqueness u_t is the mean over its tokens of the former. With
    s = softmax(u / temperature) a frame keeps the share R (1 + s_t - mean(s)), R = keep / N; tokens are ranked
    by the sum of both. The others are dropped.
    kernel: `cosine` to the mean, as the paper tells it; `gaussian`: the sum over a in 2^-3..2^1 of
    exp(-|x - mean|^2 / (2 a)) on tokens of length 1, the form in the authors' program (which also looks
    only at the half of the channels with least variance; not done here).
    Ours: counts are made exact by largest remainders, at least one for each frame where `keep` allows;
    what a full frame cannot take goes to the others. `generator` is not used.
    Raises ValueError for a temperature not above 0 or another kernel.
    """
    if not temperature > 0:
        raise ValueError(f"temperature={temperature}; allowed: above 0")
    if kernel not in ("cosine", "gaussian"):
        raise ValueError(f"kernel={kernel!r}; allowed: cosine, gaussian")
    in_video = -_similarity(clip.x, (0, 1), kernel)  # (T, n)
    in_frame = -_similarity(clip.x, (1,), kernel)
    share = (in_video.mean(dim=1) / temperature).softmax(dim=0)  # (T,)
    weights = (1 + share - share.mean()).tolist()  # 0 or more, since no mean is above 1
    capacities = [clip.per_frame] * clip.frames
    counts = allocate(keep, weights, capacities, minimum=int(keep >= clip.frames))
    return plan_of_kept(top_mask(in_video + in_frame, torch.tensor(counts, device=clip.x.device)))


def _similarity(x: Tensor, over: tuple[int, ...], kernel: str) -> Tensor:
    """Similarity of each token to the mean over the dimensions `over`: (T, n, D) -> (T, n)."""
    if kernel == "cosine":
        mean = x.mean(dim=over, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
        return (unit(x) * unit(mean)).sum(dim=2)
    u = unit(x)
    square = (u - u.mean(dim=over, keepdim=True)).square().sum(dim=2)
    widths = u.new_tensor([2.0**power for power in range(-3, 2)])
    return torch.exp(-square[..., None] / (2 * widths)).sum(dim=2)
