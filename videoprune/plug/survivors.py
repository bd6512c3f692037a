"""Which visual tokens of a stock model survived: for pictures. A model is watched only when asked to.

Shapes: F frames of the encoder (Qwen-VL joins two of the video), n tokens of a frame that the LLM would get unpruned.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from videoprune.plug.apply import session
from videoprune.plug.encoder_pass import VisionRun


@dataclass(frozen=True)
class Kept:
    """grid: rows and columns of a frame's n tokens. owner: int64 (F, n), the token that each one merged into, its own
    number where it did not merge, -1 where it was dropped. fused, last: bool (F, n), whether it reaches the LLM, and
    the LLM's last layer.

    LLaVA-OneVision reduces its pooled grid behind the encoder; what merged there is not told: such tokens have
    owner -1.
    """

    grid: tuple[int, int]
    owner: Tensor
    fused: Tensor
    last: Tensor


def watch(model: PreTrainedModel, on: bool = True) -> None:
    """Note from now on which tokens survive. It costs a wait for the GPU in every prefill.

    Raises ValueError if `model` is not pruned (`apply(model, "none")` will do).
    """
    session(model).language.notes = on


def kept(model: PreTrainedModel, frames: int) -> Kept:
    """What was left of the one clip in the last pass of a watched model. frames: of the encoder.

    Raises ValueError if nothing was noted, for a batch of several prompts, and for prompts with other images.
    """
    current = session(model)
    fused, last = current.language.fused, current.language.trace.last_places
    if len(fused) != 1 or last is None:
        raise ValueError(f"model: {len(fused)} prompts noted; allowed: one, after `watch`")
    assert current.language.dense is not None
    total = current.language.dense[0]
    run = current.last
    if run is not None and len(run.dense) != frames:
        raise ValueError(f"frames={frames}; allowed: {len(run.dense)}, as the encoder saw")
    if frames < 1 or total < frames or total % frames > 1:  # one more: a newline
        raise ValueError(f"frames={frames}; allowed: as many as the {total} visual tokens come from")
    n = total // frames
    marks = torch.zeros(2, total, dtype=torch.bool)
    marks[0, fused[0]] = True
    marks[1, torch.tensor(fused[0])[last[0]]] = True
    seen = marks[:, : frames * n].unflatten(1, (frames, n))
    owner = _owners(run, n) if run is not None else None
    if owner is None:
        owner = torch.where(seen[0], torch.arange(n), -1)
    return Kept(_grid(run, n), owner, seen[0], seen[1])


def _grid(run: VisionRun | None, n: int) -> tuple[int, int]:
    side = round(n**0.5)
    if run is not None and run.grid is not None and run.grid[0] * run.grid[1] == n:
        return run.grid
    return side, side


def _owners(run: VisionRun, n: int) -> Tensor | None:
    """(F, n) from the run's plans, in the rows' own order; None if its units are not the LLM's tokens."""
    if set(run.dense) != {n}:
        return None
    plan = run.finish(torch.device("cpu"))
    keep, into = plan.keep[0].cpu(), plan.into[0].cpu()
    everywhere = torch.where(into < 0, -1, keep[into.clamp(min=0)])  # (F * n,)
    frame = torch.arange(len(everywhere)) // n
    # What merged into another frame is gone from this one.
    inside = (everywhere >= 0) & (everywhere // n == frame)
    owner = torch.where(inside, everywhere % n, -1).unflatten(0, (-1, n))  # (F, n), in the encoder's order
    if run.order is None:
        return owner
    order = run.order.cpu().unflatten(0, (-1, n))
    order = order - n * torch.arange(len(order))[:, None]  # within the frame: encoder's place -> own place
    named = torch.where(owner < 0, -1, order.gather(1, owner.clamp(min=0)))
    return torch.empty_like(named).scatter(1, order, named)
