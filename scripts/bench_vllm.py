"""Requests a second inside vLLM with 1 to 32 in flight, on clips of noise of any size: videoprune beside stock vLLM,
its EVS and VidCom2 at the same counts. Each method has a process of its own; they take turns.

PYTHONPATH=. python scripts/bench_vllm.py qwen-demo --requests 64
PYTHONPATH=. python scripts/bench_vllm.py qwen3-vl-2b --frames 16 --size 448 448 --retain 0.25 --out runs/vllm.json

A shape of configs/models has random weights: the time is right, the answers mean nothing. `videoprune speedup --engine
vllm` does the same on a benchmark's videos, with accuracy.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from pipelines.vllm.clip_files import write_frames
from pipelines.vllm.compared import IN_FLIGHT, METHODS, Compared, compared
from pipelines.vllm.rates import Asking, requests_of_turn, take_rates
from pipelines.vllm.speed_plan import VllmPlan
from pipelines.vllm.speed_rows import report_rows, speed_table
from pipelines.vllm.worker import Spec
from pipelines.vllm.worker_process import WorkerError, WorkerProcess
from videoprune.models.loading import RANDOM, demo_names, model_config
from videoprune.types import VideoFrames


def main() -> int:
    """Status 1 if a method failed."""
    args = arguments()
    model = args.model if args.model in demo_names() else RANDOM + args.model
    settings, refused = compared(args.methods.split(","), [args.retain], model_config(model))
    assert not refused, "methods that are named are not left out"
    counts = tuple(int(n) for n in args.in_flight.split(","))
    plan = VllmPlan(
        tuple(settings),
        counts,
        args.runs,
        args.frames,
        args.new,
        requests=args.requests,
        apart=args.one_at_a_time,
        answers=False,
    )
    rates, failed = list[dict[str, Any]](), dict[str, str]()
    with tempfile.TemporaryDirectory(prefix="videoprune-") as folder:
        for group in [[s] for s in settings] if plan.apart else [settings]:
            for row in measured(args, model, plan, group, Path(folder), failed):
                rates.append(row)
                print(row["setting"], f"{row['requests'] / row['seconds']:.3g}/s", file=sys.stderr)
    rows = report_rows(plan, rates, [], failed)
    print(speed_table(rows, counts))
    for label, reason in failed.items():
        print(f"{label} failed: {reason}", file=sys.stderr)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"arguments": sys.argv[1:], "rows": rows, "turns": rates}, indent=1))
    return 1 if failed else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="qwen-demo, or a shape of Qwen3-VL in configs/models, or a YAML file")
    parser.add_argument("--methods", default=",".join(METHODS), help=f"(default: {','.join(METHODS)})")
    parser.add_argument(
        "--retain", type=float, default=0.25, help="share of the visual tokens (default: 0.25)"
    )
    parser.add_argument("--in-flight", default=",".join(map(str, IN_FLIGHT)))
    parser.add_argument("--requests", type=int, help="of a turn (default: twice as many as are in flight)")
    parser.add_argument("--runs", type=int, default=3, help="turns of each (default: 3)")
    parser.add_argument("--frames", type=int, default=8, help="of a clip (default: 8)")
    parser.add_argument("--size", type=int, nargs=2, default=(96, 96), metavar=("H", "W"))
    parser.add_argument("--text", type=int, default=20, help="words of a question (default: 20)")
    parser.add_argument("--new", type=int, default=8, help="tokens of an answer (default: 8)")
    parser.add_argument(
        "--dtype", help="(default: bfloat16 for random weights; demo models: float32 on a CPU)"
    )
    parser.add_argument("--one-at-a-time", action="store_true", help="where memory does not hold all at once")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def measured(
    args: argparse.Namespace,
    model: str,
    plan: VllmPlan,
    settings: list[Compared],
    folder: Path,
    failed: dict[str, str],
) -> Iterator[dict[str, Any]]:
    """Rows of `settings`, which take turns at every number in flight. failed: filled with what went wrong."""
    workers: dict[str, Asking] = {}
    with ExitStack() as stack:
        for setting in settings:
            own = folder / setting.label
            own.mkdir()
            spec = Spec(
                model,
                setting.prune.as_dict(),
                setting.own,
                (args.frames, *args.size),
                max(plan.in_flight),
                args.new,
                str(own),
                gpu=1 / len(settings),
                whole=True,
                dtype=args.dtype,
            )
            worker = WorkerProcess(spec, folder / f"{setting.label}.log")
            stack.callback(worker.close)
            try:
                worker.begin()
            except WorkerError as error:
                failed[setting.label] = f"{error}\n{last_words(worker.log)}"
                continue
            workers[setting.label] = worker
        for count in plan.in_flight:
            asked = clips(args, plan.requests or requests_of_turn(count), folder)
            for turn in take_rates(
                workers, count, range(plan.runs), dict.fromkeys(range(plan.runs), asked).__getitem__
            ):
                if turn.reason:
                    failed[turn.label] = f"{turn.reason}\n{last_words(folder / f'{turn.label}.log')}"
                else:
                    yield {"setting": turn.label, "in_flight": count, "run": turn.number, **turn.value}


def last_words(log: Path) -> str:
    """Of what vLLM printed, which goes with the folder."""
    return log.read_text(errors="replace")[-4000:]


def clips(args: argparse.Namespace, number: int, folder: Path) -> list[tuple[str, str]]:
    """Questions about clips of noise, each in a file that is written once."""
    found, times = [], tuple(map(float, range(args.frames)))
    for index in range(number):
        path = folder / f"{index}.frames"
        if not path.exists():
            generator = torch.Generator().manual_seed(index)
            pixels = torch.randint(256, (args.frames, *args.size, 3), generator=generator, dtype=torch.uint8)
            write_frames(VideoFrames(pixels, times, float(args.frames), "noise", "random"), path)
        found.append((str(path), " ".join(["what"] * args.text)))
    return found


if __name__ == "__main__":
    sys.exit(main())
