"""Which visual tokens survived where: for pictures, and only where they are asked for.

Shapes: F frames of the encoder (Qwen-VL joins two of the video), n tokens of a frame that the LLM would get unpruned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from videoprune.plug.encoder_pass import EncoderPass
from videoprune.types import KeepPlan, Places, Survivors, VisualTokens


@dataclass(frozen=True)
class EncoderRecord:
    """What the one encoder of a stock model did. frames: F. owner: as in `Survivors`, by its own units, or None where
    its units are not the LLM's tokens (LLaVA-OneVision pools behind it). grid: of a frame's units, if it is known."""

    frames: int
    units: int = 0
    owner: Tensor | None = None
    grid: tuple[int, int] | None = None


def record_of(run: EncoderPass | None, frames: int) -> EncoderRecord:
    """frames: of the video, which count where nothing is known of the encoder's own (nothing was pruned)."""
    if run is None:
        return EncoderRecord(frames)
    n = run.dense[0]
    even = set(run.dense) == {n}
    return EncoderRecord(len(run.dense), n, _owners(run, n) if even else None, run.layout.grid)


def stock_survivors(record: EncoderRecord, dense: int, places: Places) -> Survivors:
    """dense: visual tokens of the prompt. Raises ValueError for a prompt with other images than the clip."""
    frames = record.frames
    if frames < 1 or dense < frames or dense % frames > 1:  # one more: a newline
        raise ValueError(f"frames={frames}; allowed: as many as the {dense} visual tokens come from")
    n = dense // frames
    marks = torch.zeros(2, dense, dtype=torch.bool)
    for row, alive in enumerate((places.fused, places.last)):
        marks[row, list(alive)] = True
    fused, last = marks[:, : frames * n].unflatten(1, (frames, n))
    owner = record.owner if record.units == n else None
    if owner is None:  # what merged behind the encoder is not told
        owner = torch.where(fused, torch.arange(n), -1)
    side = round(n**0.5)
    grid = record.grid if record.grid is not None and record.grid[0] * record.grid[1] == n else (side, side)
    return Survivors(grid, owner, fused, fused, last)


def _owners(run: EncoderPass, n: int) -> Tensor:
    """(F, n) from the pass's plans, in the rows' own order."""
    plan = run.finish(torch.device("cpu"))
    keep, into = plan.keep[0].cpu(), plan.into[0].cpu()
    everywhere = torch.where(into < 0, -1, keep[into.clamp(min=0)])  # (F * n,)
    frame = torch.arange(len(everywhere)) // n
    # What merged into another frame is gone from this one.
    inside = (everywhere >= 0) & (everywhere // n == frame)
    owner = torch.where(inside, everywhere % n, -1).unflatten(0, (-1, n))  # (F, n), in the encoder's order
    if run.layout.order is None:
        return owner
    order = run.layout.order.cpu().unflatten(0, (-1, n))
    order = order - n * torch.arange(len(order))[:, None]  # within the frame: encoder's place -> own place
    named = torch.where(owner < 0, -1, order.gather(1, owner.clamp(min=0)))
    return torch.empty_like(named).scatter(1, order, named)


def fused_survivors(tokens: VisualTokens, plans: Sequence[KeepPlan], places: Places) -> dict[str, Survivors]:
    """Of one clip with several encoders. plans: by encoder (F, n), from its dense patches to what left it.

    places: as the LLM saw them; it counts fused tokens, not dense ones.
    """
    found = {}
    real = torch.arange(tokens.num_tokens)[tokens.mask[0].cpu()]
    for e, (name, plan) in enumerate(zip(tokens.encoder_names, plans, strict=True)):
        into, keep = plan.into.cpu(), plan.keep.cpu()
        left = torch.zeros(into.shape, dtype=torch.bool).scatter(1, keep, True)
        owner = torch.where(into < 0, -1, keep.gather(1, into.clamp(min=0)))
        marks = [_marks(tokens, real[list(alive)], e, into.shape) for alive in (places.fused, places.last)]
        found[name] = Survivors(tokens.grids[e], owner, left, marks[0], marks[1])
    return found


def _marks(tokens: VisualTokens, alive: Tensor, encoder: int, shape: torch.Size) -> Tensor:
    """Where the fused tokens number `alive` of one encoder sit in its frames: bool (F, n)."""
    mine = alive[tokens.encoder[0].cpu()[alive] == encoder]
    frame, row, column = tokens.origin[0].cpu()[mine].unbind(1)
    marks = torch.zeros(shape, dtype=torch.bool)
    marks[frame, row * tokens.grids[encoder][1] + column] = True
    return marks
