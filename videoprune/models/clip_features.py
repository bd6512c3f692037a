"""What a stock model's encoder makes of clips: clip by clip, and joined for a batch of prompts.

Shapes: F frames of the encoder, n tokens of a frame, W width of the LLM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from videoprune.models.inputs import Clip


@dataclass(frozen=True)
class Features:
    """What an encoder made of one clip.

    output: as the family's `get_*_features` returns it, NaN where a token was dropped, at `marked` places. kind:
    "video" or "image", as the features are called. clip: without its pixels. frames: patches of each frame as the
    encoder saw them.
    """

    output: Any
    kind: str
    clip: Clip
    marked: int
    frames: tuple[int, ...] = ()


def joined(outputs: Sequence[Any]) -> Any:
    """Features of several clips as if they had been encoded together."""
    first = outputs[0]
    found = type(first)(**dict(first.items()))  # generation may change what it is given
    found.pooler_output = _cat([o.pooler_output for o in outputs])
    if first.get("deepstack_features") is not None:
        found.deepstack_features = [
            _cat(parts) for parts in zip(*(o.deepstack_features for o in outputs), strict=True)
        ]
    return found


def split(output: Any, tokens: Sequence[int], frames: Sequence[int]) -> list[Any]:
    """The inverse: features of clips that were encoded together, clip by clip; nothing but what the LLM gets.

    tokens, frames: of each clip, visual tokens of its prompt and frames of the encoder."""
    if len(tokens) == 1:
        return [output]
    kind, parts = type(output), _parts(output.pooler_output, tokens, frames)
    deep = output.get("deepstack_features")
    if deep is None:
        return [kind(pooler_output=part) for part in parts]
    levels = zip(*(_parts(level, tokens, frames) for level in deep), strict=True)
    return [
        kind(pooler_output=part, deepstack_features=list(level))
        for part, level in zip(parts, levels, strict=True)
    ]


def dropped(output: Any) -> Tensor:
    """How many of its places hold no token, int64 ()."""
    parts = output.pooler_output
    rows = [parts] if isinstance(parts, Tensor) else list(parts)
    return torch.stack([part[..., 0].isnan().sum() for part in rows]).sum()


def _parts(x: Any, tokens: Sequence[int], frames: Sequence[int]) -> list[Any]:
    """A row for each clip, one for each frame, or one for each token: families differ."""
    if len(x) == len(tokens):
        return [x[i : i + 1] for i in range(len(tokens))]
    for sizes in (frames, tokens):
        if len(x) == sum(sizes):
            return list(x.split(list(sizes)))
    raise ValueError(
        f"{len(x)} rows of features; allowed: one for each of {len(tokens)} clips, their frames or tokens"
    )


def _cat(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], Tensor):
        # Clips of several lengths, (1, tokens, W) each, become one row of tokens.
        if len({p.shape[1:] for p in parts}) > 1:
            parts = [torch.cat([p.flatten(0, 1) for p in parts])[None]]
        return parts[0] if len(parts) == 1 else torch.cat(list(parts))
    return [row for part in parts for row in part]
