"""VidCom2, Video Compression Commander (arXiv 2505.14454): unlike frames get more, unlike tokens stay.

Shapes: T frames, n tokens of a frame, D width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from videoprune.prune.rivals.tokens import ClipTokens, over_clip, plan_of_kept
from videoprune.prune.select import top_mask
from videoprune.prune.similarity import unit
from videoprune.types import KeepPlan


@over_clip("Video Compression Commander, arXiv 2505.14454", exact=False)
def vidcom2(
    clip: ClipTokens,
    keep: int,
    *,
    temperature: float = 0.01,
    channels: float = 0.5,
    kernel: Literal["gaussian", "cosine"] = "gaussian",
    generator: torch.Generator | None = None,
) -> KeepPlan:
    """Frame uniqueness sets each frame's budget, token uniqueness within clip and frame ranks its tokens.

    Only the share `channels` of the channels with least variance over the clip is looked at. A token's uniqueness in
    the clip is minus its similarity to the clip's mean token, in the frame minus that to the frame's mean token. A
    frame's uniqueness u_t is the mean over its tokens of the former. With s = softmax(u / temperature) a frame keeps
    round(n R (1 + s_t - mean(s))) tokens, at least one and at most all, R = keep / N, so that the clip comes near
    `keep`; tokens are ranked by the sum of both. The others are dropped.
    kernel: `gaussian`, the sum over a in 2^-3..2^1 of exp(-|x - mean|^2 / (2 a)) on tokens of length 1, is what the
    authors' program runs (github.com/xuyang-liu16/VidCom2), as are the other defaults; `cosine` to the mean is how
    the paper tells it. `generator` is not used.
    Raises ValueError for a temperature not above 0, channels that are no share, or another kernel.
    """
    if not temperature > 0:
        raise ValueError(f"temperature={temperature}; allowed: above 0")
    if not 0 < channels <= 1:
        raise ValueError(f"channels={channels}; allowed: a share above 0 and at most 1")
    if kernel not in ("gaussian", "cosine"):
        raise ValueError(f"kernel={kernel!r}; allowed: gaussian, cosine")
    x = _least_varying(clip.x, channels)
    in_video = -_similarity(x, (0, 1), kernel)  # (T, n)
    in_frame = -_similarity(x, (1,), kernel)
    counts = _counts(in_video.mean(dim=1) / temperature, keep, clip.per_frame)
    return plan_of_kept(top_mask(in_video + in_frame, counts))


def _counts(unique: Tensor, keep: int, per_frame: int) -> Tensor:
    """How many tokens each frame keeps, int64 (T,), by its uniqueness (T,) over the temperature."""
    share = unique.softmax(dim=0)
    rate = (keep / (len(unique) * per_frame)) * (1 + share - share.mean())
    return (rate.clamp(max=1) * per_frame).round().long().clamp(min=1)


def _least_varying(x: Tensor, share: float) -> Tensor:
    """The channels of x (T, n, D) with least variance over the clip, at least one: (T, n, share * D)."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    count = max(1, int(x.shape[2] * share))
    if count == x.shape[2]:
        return x
    order = x.var(dim=(0, 1), correction=0).argsort(stable=True)
    return x[:, :, order[:count].sort().values]


def _similarity(x: Tensor, over: tuple[int, ...], kernel: str) -> Tensor:
    """Similarity of each token to the mean over the dimensions `over`: (T, n, D) -> (T, n)."""
    if kernel == "cosine":
        return (unit(x) * unit(x.mean(dim=over, keepdim=True))).sum(dim=2)
    u = unit(x)
    square = (u - u.mean(dim=over, keepdim=True)).square().sum(dim=2)
    widths = u.new_tensor([2.0**power for power in range(-3, 2)])
    return torch.exp(-square[..., None] / (2 * widths)).sum(dim=2)
