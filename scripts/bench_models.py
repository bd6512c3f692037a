"""Time stock models of true shape, pruned against unpruned: same frames, same kernels, alternating in one run.

    python scripts/bench_models.py llava-onevision-0.5b --frames 8 --prune balanced

Weights are random: the time is right, the answers mean nothing. `none` is the unpruned model whose frames share one
attention call where the stock code loops over them (Qwen-VL, VideoLLaMA3); it is the baseline of the ratios. A preset
may change in single settings: --prune balanced "balanced encoder.schedule=last". Long clips, each setting once:

    python scripts/bench_models.py llava-onevision-0.5b --frames 8 64 128 --runs 1 --warmup 0 --times-only --no-stock
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from pipelines.configuring import load_prune
from pipelines.measure.cell_rows import failed_row, measured_rows
from pipelines.measure.cells import Cell, LoadedModel, Setup, measure, measure_launches, measure_memory
from pipelines.measure.environment import hardware, hardware_line, versions
from pipelines.measure.machine import best_of, measured_machine
from pipelines.measure.memory import keep_freed
from pipelines.measure.plan import BASELINE, STOCK, Setting
from pipelines.measure.report.cells import markdown
from pipelines.run.results import Row
from videoprune.config import PruneConfig
from videoprune.models.random_weights import shape_names
from videoprune.prune.counts import with_fixed_shares


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments(argv)
    wanted = [setting_of(words) for words in args.prune]  # a mistake shows before the model is made
    stock = [] if args.no_stock else [Setting(STOCK, 1.0, None)]
    wanted = [*stock, Setting(BASELINE, 1.0, PruneConfig()), *wanted]
    setup = Setup(args.device, args.dtype, (args.size[0], args.size[1]), args.text, args.runs, args.warmup)
    warnings.simplefilter("ignore")
    keep_freed()
    loaded, rows = LoadedModel(args.shape, setup), list[Row]()
    for frames in sorted(args.frames):
        rows += rows_of(loaded, Cell(args.shape, frames, 1), wanted, times_only=args.times_only)
    found = versions()
    about = f"{hardware_line(hardware())}, torch {found['torch']}, transformers {found['transformers']}"
    print(markdown(rows, setup, about), end="")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        result = {"hardware": hardware(), "versions": found, "dtype": args.dtype, "cells": rows}
        args.out.write_text(json.dumps(result, indent=1))


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shape", help=f"a YAML file, or one of {', '.join(shape_names())}")
    parser.add_argument("--frames", type=int, nargs="+", default=[8], help="one table for each")
    parser.add_argument("--size", type=int, nargs=2, default=(448, 448), metavar=("H", "W"))
    parser.add_argument("--prune", nargs="+", default=["balanced"], help="presets or YAML files")
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each, after those to warm up")
    parser.add_argument("--warmup", type=int, default=1, help="runs of each before")
    parser.add_argument(
        "--times-only",
        action="store_true",
        help="no peak and no launches, for which each runs three times more",
    )
    parser.add_argument("--no-stock", action="store_true", help="without the model as it is without `apply`")
    parser.add_argument("--text", type=int, default=40, help="tokens of the question")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="where the figures go as JSON")
    return parser.parse_args(argv)


def setting_of(words: str) -> Setting:
    """ "balanced encoder.keep=0.3" -> a setting of that name."""
    name, *changes = words.split()
    return Setting(words, 1.0, with_fixed_shares(load_prune(name, changes)))


def rows_of(
    loaded: LoadedModel, cell: Cell, wanted: Sequence[Setting], *, times_only: bool = False
) -> list[Row]:
    """A row for each setting, those that failed at the end. times_only: no peaks, and no launches."""
    started, setup = time.monotonic(), loaded.setup
    machine = measured_machine(setup.device, loaded.model.dtype)
    found = list(measure(loaded, cell, wanted))
    machine = best_of(machine, measured_machine(setup.device, loaded.model.dtype))
    print(f"machine: {machine.flops / 1e12:.2f} TFLOP/s, {machine.bandwidth / 1e9:.1f} GB/s", file=sys.stderr)
    seen = [(setting, taken) for setting, taken in found if not taken.reason]
    if not times_only:
        measure_memory(loaded, cell, seen)
        measure_launches(loaded, cell, seen)
    spent = time.monotonic() - started
    rows = measured_rows(loaded, cell, seen, cell_seconds=spent, machine=machine)
    failed = [failed_row(cell, setting, taken.reason) for setting, taken in found if taken.reason]
    for row in failed:
        print(f"{row['variant']}: {row['reason']}", file=sys.stderr)
    return rows + failed


if __name__ == "__main__":
    main()
