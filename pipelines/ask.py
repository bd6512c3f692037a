"""`videoprune ask`: one question about one video: the answer, and what each stage kept and took."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

from pipelines.arguments import Commands, add_model, add_prune, add_video, check_video, command, numbers

if TYPE_CHECKING:
    from videoprune.config import PruneConfig
    from videoprune.types import Answer, Sample, VideoFrames


def add(commands: Commands) -> None:
    ask = command(commands, "ask", "Ask one question about one video.", run, overrides=True)
    add_video(ask)
    ask.add_argument("question", metavar="QUESTION")
    ask.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="TEXT",
        help="an answer to choose from; several times",
    )
    add_prune(ask)
    ask.add_argument("--policy", default="uniform", choices=("uniform", "fps", "keyframe", "timestamps"))
    ask.add_argument("--fps", type=float, help="frames per second, for --policy fps")
    ask.add_argument("--timestamps", type=numbers, metavar="S,S,...", help="for --policy timestamps")
    ask.add_argument("--backend", default="auto", choices=("auto", "decord", "pyav"))
    ask.add_argument("--json", action="store_true", help="print one JSON object")
    add_model(ask)


def run(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Raises VideoError if the video gave no frame, and ValueError for a mistake."""
    check_video(args.video)

    from pipelines.configuring import load_prune
    from videoprune.engine import Engine
    from videoprune.types import Outcome, Sample
    from videoprune.video import Reader, Sampling, VideoError

    prune = load_prune(args.prune, overrides)
    sample = Sample("ask", args.video, args.question, tuple(args.option))
    engine = Engine(args.model, prune, device=args.device)
    sampling = Sampling(args.policy, args.frames or engine.num_frames, args.fps, tuple(args.timestamps or ()))
    started = time.perf_counter()
    with Reader() as reader:
        try:
            frames = reader.read(args.video, sampling, size=engine.frame_size, backend=args.backend)
        except VideoError as error:
            if args.json:
                outcome = asdict(Outcome("failed", reason=f"{error.reason}: {error}"))
                found = {"answer": None, "choice": "", "outcome": outcome, **_made_with(args.model, prune)}
                print(json.dumps(found))
            raise
    decoded = time.perf_counter()
    encoded = engine.encode([frames])
    answer = engine.answer(encoded, [sample])[0]
    seconds = {"decode": decoded - started, **encoded[0].trace.seconds, **answer.trace.seconds}
    seconds["total"] = time.perf_counter() - started
    if args.json:
        found = _as_object(frames, answer, seconds) | _made_with(args.model, prune)
        print(json.dumps(found, ensure_ascii=False))
    else:
        _print(frames, sample, answer, seconds)
    return 0


def answer_text(options: Sequence[str], choice: str, text: str) -> str:
    """ "B. blue" for a choice, else what the model said."""
    return f"{choice}. {options[ord(choice) - ord('A')]}" if choice else text or "(the model said nothing)"


def _as_object(frames: VideoFrames, answer: Answer, seconds: Mapping[str, float]) -> dict[str, Any]:
    """What --json prints. Times are wall seconds; `total` runs from opening the video to the answer."""
    return {
        "answer": answer.text,
        "choice": answer.choice,
        "outcome": asdict(frames.outcome),
        "backend": frames.backend,
        "fallback_reason": frames.fallback_reason,
        "pts_seconds": list(frames.pts_seconds),
        "tokens": answer.trace.as_dict(),
        "seconds": {stage: round(value, 4) for stage, value in seconds.items()},
    }


def _made_with(model: str, prune: PruneConfig) -> dict[str, Any]:
    return {"model": model, "prune": prune.as_dict(), "digest": prune.digest()}


def _print(frames: VideoFrames, sample: Sample, answer: Answer, seconds: Mapping[str, float]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False)
    console.print(answer_text(sample.options, answer.choice, answer.text), style="bold", soft_wrap=True)
    if frames.outcome.kind == "truncated":
        ends = f"{frames.outcome.last_pts:.2f} s: {frames.outcome.reason}"
        console.print(f"The video ends early, at {ends}", soft_wrap=True)
    if frames.fallback_reason:
        console.print(f"Read with {frames.backend}: {frames.fallback_reason}", soft_wrap=True)
    trace = answer.trace
    times = frames.pts_seconds
    took = {stage: f"{value:.3f}" for stage, value in seconds.items()}
    table = Table("stage", "visual tokens", "seconds")
    span = f"{len(times)} frames, {times[0]:.2f} to {times[-1]:.2f} s"
    table.add_row(f"decode ({frames.backend})", span, took["decode"])
    table.add_row("prepare pixels", "", took["preprocess"])
    table.add_row("encode", "", took["encode"])
    for name, (before, after) in trace.encoder.items():
        table.add_row(f"  {name}", f"{before} -> {after}", "")
    table.add_row("encoders, choosing tokens", "", took["encode_prune"])
    arrived = sum(after for _, after in trace.encoder.values())
    table.add_row("fuse", f"{arrived} -> {trace.fused}", took["fuse"])
    table.add_row("LLM, by layer", _by_layer(trace.llm_layers), took["llm"])
    table.add_row("LLM, choosing tokens", "", took["llm_prune"], end_section=True)
    kept = f"{trace.dense} -> {trace.llm_average:.1f} on average ({100 * trace.retention:.1f} %)"
    table.add_row("all", kept, took["total"])
    console.print(table)


def _by_layer(counts: Sequence[int]) -> str:
    """(486, 486, 310) -> "486 x 2, 310 x 1"."""
    return ", ".join(f"{count} x {len(list(same))}" for count, same in groupby(counts))
