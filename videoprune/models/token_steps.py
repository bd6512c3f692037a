"""Clips of several encoders taken apart into time steps, and put together from any: what a stream remembers.

The projectors say when a frame is within its clip. A step leaves that out, and gets it anew in the clip that it
becomes part of.

Shapes: T time steps (frames), K tokens left of one, N of a clip, W width of the LLM.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from videoprune.models.encoded_frames import relative_times
from videoprune.types import TimeStep, VisualTokens


def steps_of_tokens(
    tokens: VisualTokens, projectors: nn.ModuleDict, pts_seconds: Sequence[float]
) -> list[TimeStep]:
    """One clip (1, N, W) by frame. pts_seconds: of its frames."""
    x = tokens.x[0] - _placed(tokens, projectors, relative_times(pts_seconds))
    starts = _starts(tokens.grids)
    frame, row, column = tokens.origin[0].unbind(1)
    columns, start = (
        torch.tensor(n, device=x.device)[tokens.encoder[0]] for n in (_columns(tokens), starts[:-1])
    )
    place = start + row * columns + column
    found = []
    for i, pts in enumerate(pts_seconds):
        mine = (frame == i).nonzero()[:, 0]
        mine = mine[place[mine].argsort()]
        size = tokens.size[0, mine].float()
        found.append(TimeStep(x[mine], place[mine], size, starts[-1], (pts,), grids=tokens.grids))
    return found


def tokens_of_steps(steps: Sequence[TimeStep], projectors: nn.ModuleDict, like: VisualTokens) -> VisualTokens:
    """One clip (1, N, W) of these steps. like: a clip of the same encoders."""
    x, place, size = (torch.cat([getattr(s, name) for s in steps]) for name in ("x", "place", "size"))
    frame = torch.repeat_interleave(torch.tensor([len(s) for s in steps])).to(place.device)
    starts = torch.tensor(_starts(like.grids), device=place.device)
    encoder = torch.searchsorted(starts, place, right=True) - 1
    within, columns = place - starts[encoder], torch.tensor(_columns(like), device=place.device)[encoder]
    origin = torch.stack([frame, torch.div(within, columns, rounding_mode="floor"), within % columns], 1)
    pts = [s.pts_seconds[0] for s in steps]
    made = VisualTokens(
        x=x[None],
        size=size[None].to(like.size.dtype),
        origin=origin[None],
        encoder=encoder[None],
        encoder_names=like.encoder_names,
        grids=like.grids,
        pts_seconds=torch.tensor([pts], dtype=torch.float64),
        mask=torch.ones(1, len(x), dtype=torch.bool, device=x.device),
    )
    made.x.add_(_placed(made, projectors, relative_times(pts)))
    return made


def _starts(grids: Sequence[tuple[int, int]]) -> list[int]:
    """Where each encoder's places begin in a step, and where the last ones end."""
    return [0, *accumulate(rows * columns for rows, columns in grids)]


def _columns(tokens: VisualTokens) -> list[int]:
    return [columns for _, columns in tokens.grids]


def _placed(tokens: VisualTokens, projectors: nn.ModuleDict, when: Tensor) -> Tensor:
    """What the projectors add for where and when each token is, (N, W). when: (T,), relative times."""
    frame, row, column = tokens.origin[0].unbind(1)
    out = torch.empty_like(tokens.x[0])
    for e, (name, grid) in enumerate(zip(tokens.encoder_names, tokens.grids, strict=True)):
        mine = (tokens.encoder[0] == e).nonzero()[:, 0]
        where = torch.stack(
            [when.to(out.device)[frame[mine]], (row[mine] + 0.5) / grid[0], (column[mine] + 0.5) / grid[1]], 1
        )
        projector: Any = projectors[name]
        out[mine] = projector.placed(where).to(out.dtype)
    return out
