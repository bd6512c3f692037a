"""`videoprune speedup`: how much faster, where the time goes, what it costs in accuracy, and against which methods."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.arguments import (
    BENCHMARKS,
    TRANSFORMERS,
    VLLM,
    Commands,
    add_data,
    add_judge,
    add_model,
    add_protocol,
    command,
    count,
    counts,
    numbers,
    words,
)
from pipelines.measure.provenance import REPORT_SEED

if TYPE_CHECKING:
    from pipelines.measure.asked import Asked

_RANDOM = "random:"


def add(commands: Commands) -> None:
    text = "How much faster, where the time goes, what it costs in accuracy: methods side by side, with a report."
    speed = command(commands, "speedup", text, run)
    speed.add_argument("benchmark", choices=("moving-shapes", *BENCHMARKS))
    add_protocol(speed)
    speed.add_argument("--subtitles", action="store_true", help="videomme: with subtitles in the prompt")
    speed.add_argument(
        "--methods",
        type=words,
        metavar="M,M,...",
        help="none, videoprune (light, balanced, aggressive), evoprune, meteor, and rivals (default: all); vllm: those "
        "without stage 3, vllm-evs, vllm-vidcom2 (default: none,balanced-serve,vllm-evs,vllm-vidcom2)",
    )
    speed.add_argument("--retain", type=numbers, default=(0.5, 0.25, 0.1), metavar="R,R,...")
    speed.add_argument(
        "--frames", type=counts, metavar="N,N,...", help="(default: the protocol's or model's)"
    )
    speed.add_argument("--max-new-tokens", type=count, metavar="N", help="(default: the protocol's)")
    speed.add_argument(
        "--concurrency",
        type=counts,
        metavar="N,N,...",
        help="clips in a call (default: 1); vllm: requests in flight (default: 1,2,4,8,16,32)",
    )
    speed.add_argument("--runs", type=count, default=7, metavar="N", help="timed runs of each (default: 7)")
    speed.add_argument(
        "--plan",
        action="store_true",
        help="only tell, from a few videos, how long all would take, what waits, how much memory; keeps nothing",
    )
    speed.add_argument(
        "--engine",
        default=TRANSFORMERS,
        choices=(TRANSFORMERS, VLLM),
        help="vllm: requests a second inside vLLM, beside its own pruning (docs/vllm.md)",
    )
    speed.add_argument(
        "--requests",
        type=count,
        metavar="N",
        help="vllm: of a timed turn (default: twice as many as are in flight, 16 at least)",
    )
    speed.add_argument(
        "--one-at-a-time",
        action="store_true",
        help="vllm: methods one after the other, where memory does not hold all of them at once",
    )
    speed.add_argument("--chosen-on", metavar="TEXT", help="on which data settings of yours were chosen")
    speed.add_argument("--out", metavar="DIR", help="figures and report (default: below runs/speedup)")
    speed.add_argument("--restart", action="store_true", help="empty --out first")
    add_judge(speed)
    add_data(
        speed,
        seed=REPORT_SEED,
        limit="a sample of at most N questions: whole videos, even over durations, drawn by --seed",
    )
    add_model(speed)


def run(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Measure each model of `--model` into a folder of its own, and write its report. Status 1 if a question had no
    video to be asked about."""
    from pipelines.measure.asked import open_asked

    names = args.model.removeprefix(_RANDOM).split(",")
    prefix = _RANDOM if args.model.startswith(_RANDOM) else ""
    models = [f"{prefix}{name}" for name in names]
    measured = _inside_vllm(args, models) if args.engine == VLLM else _in_transformers(args)
    asked = open_asked(args)
    status = 0
    for name, model in zip(names, models, strict=True):
        base = Path(args.out or "runs/speedup")
        engine = f"{VLLM}-" if args.engine == VLLM else ""
        out = base if len(names) == 1 and args.out else base / f"{asked.task.label}{engine}{_folder(name)}"
        status = max(status, measured(model, asked, out))
    return status


def _in_transformers(args: argparse.Namespace) -> Callable[[str, Asked, Path], int]:
    """Measures one model. Raises ValueError for what is for vLLM alone."""
    for name, value in (("--requests", args.requests), ("--one-at-a-time", args.one_at_a_time)):
        if value:
            raise ValueError(f"{name}={value} with --engine {TRANSFORMERS}; allowed: --engine {VLLM}")
    from pipelines.measure.memory import keep_freed
    from pipelines.measure.speed_run import SpeedRun

    keep_freed()
    args.concurrency = args.concurrency or (1,)

    def measured(model: str, asked: Asked, out: Path) -> int:
        one = SpeedRun(model, args, asked, out)
        return one.tell_plan() if args.plan else one.measure()

    return measured


def _inside_vllm(args: argparse.Namespace, models: Sequence[str]) -> Callable[[str, Asked, Path], int]:
    """The same with vLLM. Raises ValueError for what cannot be done there, before anything is made or read."""
    from pipelines.vllm.speed_run import VllmSpeedRun, check
    from pipelines.vllm.stage import version

    check(args, models)
    version()
    return lambda model, asked, out: VllmSpeedRun(model, args, asked, out).measure()


def _folder(model: str) -> str:
    """The last part of a model's name; what is behind a dot belongs to it (qwen2.5), unless it is a file's ending."""
    path = Path(model)
    return path.stem if path.suffix in (".yaml", ".yml") else path.name
