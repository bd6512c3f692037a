"""`videoprune tables`: measures the tables of docs/tables.md. A stopped command goes on where it was."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from pipelines.arguments import Commands, add_data, add_model, command


def add(commands: Commands) -> None:
    tables = command(commands, "tables", "Measure the tables of docs/tables.md.", run)
    tables.add_argument(
        "--out", metavar="DIR", help="of tables.md, whose other tables stay as they are (default: --runs)"
    )
    tables.add_argument(
        "--runs", default="runs/tables", metavar="DIR", help="where the runs are kept (default: runs/tables)"
    )
    tables.add_argument("--only", metavar="NAME", help="one table")
    tables.add_argument("--split", help="of moving-shapes: standard or hard (default: what --data holds)")
    tables.add_argument("--restart", action="store_true", help="measure anew what is there already")
    add_data(tables)
    add_model(tables)


def run(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Raises ValueError for a table that is none."""
    from pipelines.measure.table_rows import TABLES
    from pipelines.measure.table_runs import Bench, measure_table, part, write_tables
    from pipelines.run.results import write_whole
    from pipelines.run.tasks import CLIPS, Task, moving_shapes, moving_shapes_label

    if args.only and args.only not in TABLES:
        raise ValueError(f"only={args.only!r}; allowed: {', '.join(TABLES)}")
    split, samples = moving_shapes(args.data, args.clips or CLIPS, args.seed, args.limit, args.split)
    label, runs = moving_shapes_label(split, args.data, args.seed), Path(args.runs)
    task = Task("MovingShapes", label, samples)
    page = Path(args.out or runs) / "tables.md"
    for model in args.model.split(","):
        bench = Bench(model, task, runs, split, device=args.device, restart=args.restart)
        for name in [args.only] if args.only else TABLES:
            if not bench.rows_of(TABLES[name]):
                print(f"{name}: not of {model}, which has one encoder")
                continue
            text = part(measure_table(TABLES[name], bench), split.titles, _command(name, model, args))
            write_whole(runs / f"{name}.{Path(model).name}.{split.name}.md", text)
            write_tables(runs, page)
            print(text, f"written to {page}", sep="\n\n")
    return 0


def _command(name: str, model: str, args: argparse.Namespace) -> str:
    words = ["videoprune", "tables", "--model", model, "--only", name]
    usual = {"data": None, "clips": None, "seed": 0, "split": None, "limit": None, "device": None}
    for option, default in usual.items():
        if getattr(args, option) != default:
            words += [f"--{option}", str(getattr(args, option))]
    return shlex.join(words)
