"""Clips of stock models taken apart into time steps, and put together from any: what a stream remembers.

A step's tokens do not depend on the steps beside it (frames attend to themselves), so a clip may be encoded as it
arrives and asked about as one.

Shapes: T time steps, n dense places of one, N dense places of a clip, K tokens left of a step, W width of the LLM.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from videoprune.models.clip_features import Features
from videoprune.models.inputs import Clip
from videoprune.types import TimeStep

_NAN = float("nan")


def time_steps(features: Features, pts_seconds: Sequence[float], *, newline: bool) -> list[TimeStep]:
    """One clip by time step. pts_seconds: of its frames. newline: whether a token of no frame stands at its end."""
    steps = len(features.frames)
    x = _flat(features.output.pooler_output)  # (N, W)
    levels = [_flat(level) for level in features.output.get("deepstack_features") or ()]
    dense = (len(x) - newline) // steps
    assert dense * steps + newline == len(x), f"{len(x)} places of {steps} steps"
    each = -(-len(pts_seconds) // steps)  # frames of a step; the last may have fewer
    found = []
    for i in range(steps):
        mine = slice(i * dense, (i + 1) * dense)
        place = (~x[mine][:, 0].isnan()).nonzero()[:, 0]
        found.append(
            TimeStep(
                x=x[mine][place],
                place=place,
                size=x.new_ones(len(place), dtype=torch.float32),
                dense=dense,
                pts_seconds=tuple(pts_seconds[i * each : (i + 1) * each]),
                deep=tuple(level[mine][place] for level in levels),
                patches=features.frames[i],
            )
        )
    return found


def clip_of_steps(steps: Sequence[TimeStep], like: Features, clip: Clip, *, newline: bool) -> Features:
    """A clip of these steps. like: some clip's features, whose form they take. clip: what its prompt says."""
    x = _filled([s.x for s in steps], steps)
    levels = [_filled([s.deep[i] for s in steps], steps) for i in range(len(steps[0].deep))]
    whole = _flat(like.output.pooler_output)
    tail = whole[-1:] if newline else whole[:0]
    marked = sum(s.dense - len(s) for s in steps)
    found: dict[str, Any] = {"pooler_output": _formed(torch.cat([x, tail]), like.output.pooler_output)}
    if levels:
        forms = like.output.deepstack_features
        found["deepstack_features"] = [_formed(x, form) for x, form in zip(levels, forms, strict=True)]
    return Features(type(like.output)(**found), like.kind, clip, marked, tuple(s.patches for s in steps))


def _filled(parts: Sequence[Tensor], steps: Sequence[TimeStep]) -> Tensor:
    """Tokens at their places, NaN at all others: (N, W)."""
    first = parts[0]
    out = first.new_full((sum(s.dense for s in steps), first.shape[1]), _NAN)
    start = 0
    for part, step in zip(parts, steps, strict=True):
        out[start + step.place] = part
        start += step.dense
    return out


def _flat(output: Any) -> Tensor:
    """(N, W), whatever rows a family has."""
    if isinstance(output, Tensor):
        return output.flatten(0, -2)
    return torch.cat([part.flatten(0, -2) for part in output])


def _formed(x: Tensor, like: Any) -> Any:
    """(N, W) as a family returns one clip: a tensor with or without a row for it, or a sequence of one tensor."""
    if isinstance(like, Tensor):
        return x[None] if like.ndim == 3 else x
    return type(like)([x])
