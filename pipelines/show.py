"""A video of which tokens survive each stage: behind the encoders, behind fusion, at the LLM's last layer.

Shapes: T frames, n patches of an encoder's dense grid, K tokens that left the encoder, N fused tokens.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from pipelines.configuring import load_prune
from videoprune.engine import AnyEngine, open_engine
from videoprune.eval.overlay import Image, draw_tokens, sheet
from videoprune.plug.survivors import kept, watch
from videoprune.stock_engine import StockEngine
from videoprune.types import KeepPlan, VideoFrames, VisualTokens
from videoprune.video import Reader, Sampling, VideoError
from videoprune.video.write import write_mp4

_TILE = 320  # pixels of a picture's longer side
_REPEAT = 10


@dataclass(frozen=True)
class Survivors:
    """What became of every patch of one clip, encoder by encoder.

    grids: rows and columns. owner: (T, n), the patch whose token each patch merged into, -1: dropped. stages: by
    name, for each encoder bool (T, n), whether the token at a patch is there behind that stage.
    """

    encoders: tuple[str, ...]
    grids: tuple[tuple[int, int], ...]
    owner: tuple[NDArray[np.int64], ...]
    stages: dict[str, tuple[NDArray[np.bool_], ...]]
    answer: str


def run(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    """`videoprune show`. Status 1 if the video gave no frame."""
    prune = load_prune(args.prune, overrides)
    engine = open_engine(args.model, prune, device=args.device)
    sampling = Sampling(max_frames=args.frames or engine.num_frames)
    try:
        with Reader() as reader:
            frames = reader.read(args.video, sampling, size=engine.frame_size)
            clear = reader.read(args.video, sampling)  # the same frames at their own size, to draw on
    except VideoError as error:
        if error.reason == "missing":  # a wrong path is the caller's slip, not the video's fault
            raise
        print(f"videoprune: {error}", file=sys.stderr)
        return 1
    found = survivors(engine, frames, args.question)
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    encoder = write_mp4(pictures(clear, found), out, rate=args.rate, repeat=_REPEAT)
    for stage, marks in found.stages.items():
        counts = ", ".join(
            f"{e} {int(m.sum())} of {m.size}" for e, m in zip(found.encoders, marks, strict=True)
        )
        print(f"{stage}: {counts}")
    print(f"answer: {found.answer or '(the model said nothing)'}")
    print(f"{out}: {len(frames)} frames, {encoder}")
    return 0


def survivors(engine: AnyEngine, frames: VideoFrames, question: str) -> Survivors:
    """Run one clip with one question and note which tokens are left.

    A stock model has one encoder and no fusion, and patches that it joins count as one.
    """
    if isinstance(engine, StockEngine):
        return _of_stock_model(engine, frames, question)
    plans: dict[str, KeepPlan] = {}
    tokens, _ = engine.encode([frames], plans=plans)
    places: list[list[int]] = []
    answer = engine.answer(tokens, [question], last_places=places)[0]
    fused = torch.arange(tokens.num_tokens)[tokens.mask[0].cpu()]
    chosen = [plans[name] for name in tokens.encoder_names]
    return Survivors(
        tokens.encoder_names,
        tokens.grids,
        tuple(_owner(plan) for plan in chosen),
        {
            "encoder": tuple(_marks_of_plan(plan) for plan in chosen),
            "fused": _marks_of_tokens(tokens, fused, chosen),
            "llm": _marks_of_tokens(tokens, fused[torch.tensor(places[0], dtype=torch.int64)], chosen),
        },
        answer.text,
    )


def _of_stock_model(engine: StockEngine, frames: VideoFrames, question: str) -> Survivors:
    watch(engine.model)
    clips, _ = engine.encode([frames])
    answer = engine.answer(clips, [question])[0]
    seen = len(clips[0].units) or len(frames)  # Qwen-VL's encoder sees two frames of the video as one
    found = kept(engine.model, seen)
    frame = torch.arange(len(frames)) // -(-len(frames) // seen)
    stages = {"encoder": found.fused, "llm": found.last}
    return Survivors(
        ("vision",),
        (found.grid,),
        (found.owner[frame].numpy(),),
        {name: (marks[frame].numpy(),) for name, marks in stages.items()},
        answer.text,
    )


def pictures(frames: VideoFrames, found: Survivors) -> Iterator[Image]:
    """One sheet for each frame: a row for each encoder, a column for each stage."""
    for t, (image, pts) in enumerate(zip(_tiles(frames), frames.pts_seconds, strict=True)):
        rows = []
        for e, name in enumerate(found.encoders):
            row = [(f"{name} {pts:.1f}s", image)]
            for stage, marks in found.stages.items():
                alive = marks[e][t]
                title = f"{stage} {int(alive.sum())}/{alive.size}"
                row.append((title, draw_tokens(image, found.grids[e], found.owner[e][t], alive)))
            rows.append(row)
        yield sheet(rows)


def _owner(plan: KeepPlan) -> NDArray[np.int64]:
    """The dense patch that each patch's token sits at, (T, n); -1: dropped."""
    into, keep = plan.into.cpu(), plan.keep.cpu()
    return torch.where(into < 0, -1, keep.gather(1, into.clamp(min=0))).numpy()


def _marks_of_plan(plan: KeepPlan) -> NDArray[np.bool_]:
    marks = torch.zeros(plan.into.shape, dtype=torch.bool)
    return marks.scatter(1, plan.keep.cpu(), True).numpy()


def _marks_of_tokens(
    tokens: VisualTokens, chosen: torch.Tensor, plans: Sequence[KeepPlan]
) -> tuple[NDArray[np.bool_], ...]:
    """Where the tokens number `chosen` of the one clip sit, by encoder (T, n)."""
    marks = [np.zeros(tuple(plan.into.shape), bool) for plan in plans]
    origin, owner = tokens.origin[0].cpu()[chosen], tokens.encoder[0].cpu()[chosen]
    for (frame, row, column), e in zip(origin.tolist(), owner.tolist(), strict=True):
        marks[e][frame, row * tokens.grids[e][1] + column] = True
    return tuple(marks)


def _tiles(frames: VideoFrames) -> Iterator[Image]:
    """Frames with a longer side of `_TILE` pixels."""
    height, width = frames.pixels.shape[1:3]
    factor = _TILE / max(height, width)
    size = (max(2, round(height * factor)), max(2, round(width * factor)))
    for one in frames.pixels:
        x = one.permute(2, 0, 1)[None].float()
        x = F.interpolate(x, size, mode="bilinear", antialias=True)
        yield x[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()
