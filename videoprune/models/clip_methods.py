"""Rival methods at the encoder's end: a clip's tokens in, one plan over all of them out.

Shapes: F frames of all clips, n tokens of a frame, D width, d key width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from videoprune.prune.baselines import CLIP_METHODS, ClipTokens
from videoprune.types import KeepPlan


def is_clip_method(method: str) -> bool:
    """Whether `encoder.method` looks at a whole clip at the encoder's end. `random` and `uniform` go by frame."""
    return method in CLIP_METHODS and method not in ("random", "uniform")


def needs_heads(method: str) -> bool:
    """Whether it looks at the attention or the keys of the encoder's last block."""
    return bool(CLIP_METHODS[method].needs)


def choose(
    method: str,
    x: Tensor,
    keep: Sequence[int],
    clips: Sequence[int],
    *,
    attention: Tensor | None = None,
    keys: Tensor | None = None,
    grid: tuple[int, int] | None = None,
    generator: torch.Generator | None = None,
) -> KeepPlan:
    """x (F, n, D), attention (F, n), keys (F, n, d): `keep[i]` tokens of clip i, which has `clips[i]` frames.

    -> one plan over the F * n tokens, one row. Raises ValueError if the method needs what is missing.
    """
    function, tokens = CLIP_METHODS[method].function, x.shape[1]
    keeps, intos = [], []
    first = kept = 0
    for frames, count in zip(clips, keep, strict=True):
        part = slice(first, first + frames)
        clip = ClipTokens(
            x[part],
            None if attention is None else attention[part],
            None if keys is None else keys[part],
            grid,
        )
        plan = function(clip, count, generator=generator)
        keeps.append(plan.keep[0] + first * tokens)
        intos.append((plan.into[0] + kept).where(plan.into[0] >= 0, -1))
        first, kept = first + frames, kept + plan.num_kept
    return KeepPlan(torch.cat(keeps)[None], torch.cat(intos)[None])
