"""Time to first token on a GPU: stock models of true shape with random weights, every method in turn in one run.

    PYTHONPATH=. python scripts/bench_gpu.py --out runs/gpu

Needs torch, transformers and einops, no decoder and no ray. Each cell (a shape, a number of frames, a number of clips
in a call) goes to OUT/results.jsonl when it is done; the same command goes on where the last one stopped.
OUT/results.json and OUT/table.md hold everything so far. After --budget seconds no new cell begins. Status 1 if
something raised, out of memory apart. Weights are random: the time is right, the answers mean nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from pipelines.measure.cell_rows import FAILED, failed_row, is_error, measured_rows, row_name
from pipelines.measure.cells import Cell, LoadedModel, Setup, Taken, cells, free, measure, measure_launches
from pipelines.measure.environment import (
    gpu_details,
    hardware,
    hardware_line,
    revision,
    source_digest,
    versions,
)
from pipelines.measure.plan import BASELINE, STOCK, Setting, settings_of
from pipelines.measure.report.cells import markdown
from pipelines.measure.same_run import keep_facts
from pipelines.measure.turns import explained
from pipelines.run.results import Results, model_fingerprint, read_rows, write_whole
from pipelines.run.row_index import Row
from videoprune.config import PruneConfig
from videoprune.models.random_weights import shape_names

SHAPES = ("llava-onevision-7b", "qwen2.5-vl-7b", "qwen3-vl-8b")
METHODS = ("videoprune", "evoprune", "divprune", "fastv")


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    warnings.simplefilter("ignore")
    setup = Setup(args.device, args.dtype, (args.size[0], args.size[1]), args.text, args.runs, args.warmup)
    wanted = (
        Setting(STOCK, 1.0, None),
        Setting(BASELINE, 1.0, PruneConfig()),
        *settings_of(args.methods, args.retain),
    )
    plan = cells(args.shape, args.frames, args.concurrency)
    # The revision may differ where the source does not.
    about = keep_facts(args.out, environment(setup, args.shape), growing="shapes", free=("revision",))
    with Results(args.out / "results.jsonl") as results:
        run = Run(results, wanted, setup, args.budget)
        run.all(plan, lambda: report(args.out, results, plan, setup, about))
    print((args.out / "table.md").read_text(), end="")
    return int(any(map(is_error, read_rows(args.out / "results.jsonl").values())))


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder of the results")
    parser.add_argument(
        "--shape", nargs="+", default=list(SHAPES), help=f"YAML files, or of {', '.join(shape_names())}"
    )
    parser.add_argument("--frames", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8], help="clips in a call")
    parser.add_argument(
        "--methods", nargs="+", default=list(METHODS), help="as `videoprune speedup` has them"
    )
    parser.add_argument("--retain", type=float, nargs="+", default=[0.25, 0.1])
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each")
    parser.add_argument("--warmup", type=int, default=1, help="runs before them")
    parser.add_argument("--size", type=int, nargs=2, default=(448, 448), metavar=("H", "W"))
    parser.add_argument("--text", type=int, default=40, help="tokens of the question")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--budget", type=float, default=1200, help="seconds; then no new cell begins (default: 1200)"
    )
    return parser.parse_args(argv)


def environment(setup: Setup, shapes: Sequence[str]) -> dict[str, Any]:
    """What the figures depend on. shapes: by name, digests of their configurations."""
    return {
        "setup": dataclasses.asdict(setup) | {"size": list(setup.size)},
        "shapes": {s: model_fingerprint(f"random:{s}") for s in shapes},
        "hardware": hardware(),
        "gpu": gpu_details(),
        "versions": versions(),
        "revision": revision(),
        "source": source_digest(),
    }


class Run:
    """Cells one after another, as long as the time lasts.

    budget: seconds from now on. A cell begins if the last one's seconds, in proportion to the frames of the call,
    still fit; within one no turn begins when the time is over.
    """

    def __init__(self, results: Results, wanted: Sequence[Setting], setup: Setup, budget: float) -> None:
        self.results, self.wanted, self.setup = results, wanted, setup
        self.end = time.monotonic() + budget
        self.loaded: LoadedModel | None = None

    def all(self, plan: Sequence[Cell], report: Callable[[], None]) -> None:
        """report: called after each cell, and at first."""
        report()
        for cell in plan:
            if self.done(cell):
                continue
            if time.monotonic() + self.estimate(cell) >= self.end:
                print(f"the time is over before {cell}", file=sys.stderr)
                return
            self.one(cell)
            report()

    def done(self, cell: Cell) -> bool:
        return all(row_name(cell, v) in self.results.index for v in self.wanted)

    def estimate(self, cell: Cell) -> float:
        """Seconds that `cell` may take; 0 before there is any."""
        for row in reversed(read_rows(self.results.path).values()):
            if "cell_seconds" in row:
                work = row["frames"] * row["concurrency"]
                return row["cell_seconds"] * cell.frames * cell.concurrency / work
        return 0.0

    def one(self, cell: Cell) -> None:
        """Measure `cell`, whole: a variant that is new in it is paired with runs of the others of its own time. What
        failed before is not tried again."""
        started = time.monotonic()
        print(cell, file=sys.stderr)
        known = read_rows(self.results.path)
        names = {v.label: row_name(cell, v) for v in self.wanted}
        failed = {label for label, n in names.items() if known.get(n, {}).get("status") == FAILED}
        loaded = self.load(cell)
        if loaded is None:
            return
        seen: list[tuple[Setting, Taken]] = []
        over = lambda: time.monotonic() >= self.end  # noqa: E731
        wanted = [s for s in self.wanted if s.label not in failed]
        for setting, taken in measure(loaded, cell, wanted, over=over):
            if taken.reason:
                self.results.append([failed_row(cell, setting, taken.reason)])
            else:
                seen.append((setting, taken))
        if not over():
            measure_launches(loaded, cell, seen)
        spent = time.monotonic() - started
        self.results.append(measured_rows(loaded, cell, seen, cell_seconds=spent))

    def load(self, cell: Cell) -> LoadedModel | None:
        """The model of `cell`, one at a time; None if it does not fit, which its variants' rows say then."""
        if self.loaded is not None and self.loaded.shape == cell.shape:
            return self.loaded
        self.loaded, reason = None, ""
        free(self.setup.device)
        try:
            self.loaded = LoadedModel(cell.shape, self.setup)
        except torch.cuda.OutOfMemoryError as error:
            reason = explained(error)
        if reason:
            free(self.setup.device)
            self.results.append([failed_row(cell, v, reason) for v in self.wanted])
        return self.loaded


def report(out: Path, results: Results, plan: Sequence[Cell], setup: Setup, about: dict[str, Any]) -> None:
    """Everything so far, cells of earlier runs in the same folder with it."""
    rows: list[Row] = list(read_rows(results.path).values())
    there = {(r["shape"], r["frames"], r["concurrency"]) for r in rows}
    left = [dataclasses.asdict(c) for c in plan if (c.shape, c.frames, c.concurrency) not in there]
    whole = {"environment": about, "cells": rows, "not_measured": left}
    write_whole(out / "results.json", json.dumps(whole, indent=1) + "\n")
    write_whole(out / "table.md", markdown(rows, setup, heading(about)))


def heading(about: dict[str, Any]) -> str:
    found, gpu = about["versions"], about["gpu"]
    line = f"{hardware_line(about['hardware'])}, torch {found['torch']}, transformers {found['transformers']}"
    if gpu["memory_bytes"]:
        line += f", CUDA {gpu['cuda']}, driver {gpu['driver']}"
    return f"{line}, revision {about['revision'] or about['source']}"


if __name__ == "__main__":
    sys.exit(main())
