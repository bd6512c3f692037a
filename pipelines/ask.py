"""One question about one video: the answer, and what each stage kept and took."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table

from pipelines.configuring import load_prune
from videoprune.engine import AnyEngine, open_engine
from videoprune.types import Answer, Outcome, Sample, VideoFrames
from videoprune.video import Reader, Sampling, VideoError


def run(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    """`videoprune ask`. Status 1 if the video gave no frame."""
    prune = load_prune(args.prune, overrides)
    sample = Sample("ask", args.video, args.question, tuple(args.option))
    engine = open_engine(args.model, prune, device=args.device)
    sampling = Sampling(args.policy, args.frames or engine.num_frames, args.fps, tuple(args.timestamps or ()))
    started = time.perf_counter()
    with Reader() as reader:
        try:
            frames = reader.read(args.video, sampling, size=engine.frame_size, backend=args.backend)
        except VideoError as error:
            if error.reason == "missing":  # a wrong path is the caller's slip, not the video's fault
                raise
            return _report_failure(error, args, engine)
    seconds = {"decode": time.perf_counter() - started}
    answer = answer_clip(engine, frames, sample, seconds)
    seconds["total"] = time.perf_counter() - started
    if args.json:
        print(json.dumps(as_object(args.model, engine, frames, answer, seconds), ensure_ascii=False))
    else:
        _print(frames, sample, answer, seconds)
    return 0


def answer_clip(engine: AnyEngine, frames: VideoFrames, sample: Sample, seconds: dict[str, float]) -> Answer:
    """One answer about decoded frames; the times of encode, fuse, llm and llm_prune go into `seconds`."""
    tokens: Any
    tokens, encoding = engine.encode([frames])
    answer = engine.answer(tokens, [sample])[0]
    seconds.update(encoding | answer.trace.seconds)
    return answer


def as_object(
    model: str, engine: AnyEngine, frames: VideoFrames, answer: Answer, seconds: dict[str, float]
) -> dict[str, Any]:
    """What --json prints. Times are wall seconds; `total` runs from opening the video to the answer."""
    return {
        "answer": answer.text,
        "choice": answer.choice,
        "outcome": _outcome(frames.outcome),
        "backend": frames.backend,
        "fallback_reason": frames.fallback_reason,
        "pts_seconds": list(frames.pts_seconds),
        "tokens": answer.trace.as_dict(),
        "seconds": {stage: round(value, 4) for stage, value in seconds.items()},
        **_made_with(model, engine),
    }


def answer_text(sample: Sample, answer: Answer) -> str:
    """ "B. blue" for a choice, else what the model said."""
    if not answer.choice:
        return answer.text or "(the model said nothing)"
    return f"{answer.choice}. {sample.options[ord(answer.choice) - ord('A')]}"


def _made_with(model: str, engine: AnyEngine) -> dict[str, Any]:
    return {"model": model, "prune": engine.prune.as_dict(), "digest": engine.prune.digest()}


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "kind": outcome.kind,
        "reason": outcome.reason,
        "last_pts": outcome.last_pts,
        "errors": outcome.errors,
    }


def _report_failure(error: VideoError, args: argparse.Namespace, engine: AnyEngine) -> int:
    if args.json:
        outcome = _outcome(Outcome("failed", reason=f"{error.reason}: {error}"))
        print(
            json.dumps({"answer": None, "choice": "", "outcome": outcome, **_made_with(args.model, engine)})
        )
    print(f"videoprune: {error}", file=sys.stderr)
    return 1


def _print(frames: VideoFrames, sample: Sample, answer: Answer, seconds: dict[str, float]) -> None:
    console = Console(markup=False, highlight=False)
    console.print(answer_text(sample, answer), style="bold", soft_wrap=True)
    if frames.outcome.kind == "truncated":
        console.print(
            f"The video ends early, at {frames.outcome.last_pts:.2f} s: {frames.outcome.reason}",
            soft_wrap=True,
        )
    if frames.fallback_reason:
        console.print(f"Read with {frames.backend}: {frames.fallback_reason}", soft_wrap=True)
    trace = answer.trace
    table = Table("stage", "visual tokens", "seconds")
    times = frames.pts_seconds
    span = f"{len(times)} frames, {times[0]:.2f} to {times[-1]:.2f} s"
    table.add_row(f"decode ({frames.backend})", span, f"{seconds['decode']:.3f}")
    table.add_row("encode", "", f"{seconds['encode']:.3f}")
    for name, (before, after) in trace.encoder.items():
        table.add_row(f"  {name}", f"{before} -> {after}", "")
    arrived = sum(after for _, after in trace.encoder.values())
    table.add_row("fuse", f"{arrived} -> {trace.fused}", f"{seconds['fuse']:.3f}")
    table.add_row("LLM, by layer", _by_layer(trace.llm_layers), f"{seconds['llm']:.3f}")
    table.add_row("LLM, choosing tokens", "", f"{seconds['llm_prune']:.3f}", end_section=True)
    kept = f"{trace.dense} -> {trace.llm_average:.1f} on average ({100 * trace.retention:.1f} %)"
    table.add_row("all", kept, f"{seconds['total']:.3f}")
    console.print(table)


def _by_layer(counts: Sequence[int]) -> str:
    """(486, 486, 310) -> "486 x 2, 310 x 1"."""
    return ", ".join(f"{count} x {len(list(same))}" for count, same in groupby(counts))
