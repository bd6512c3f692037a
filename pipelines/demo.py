"""`videoprune demo`: makes clips, asks about each, unpruned and pruned, shows what each stage kept."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipelines.arguments import Commands, add_model, command, count, words
from pipelines.ask import answer_text

if TYPE_CHECKING:
    from rich.table import Table

    from videoprune.engine import Engine
    from videoprune.result_row import ResultRow
    from videoprune.types import Sample

_ANSWER_WIDTH = 20
_PAGE_WIDTH = 120  # where the output is no terminal


class Asked(NamedTuple):
    """One question answered with one setting."""

    sample: Sample
    setting: str
    row: ResultRow


def add(commands: Commands) -> None:
    demo = command(commands, "demo", "Make clips and answer questions, unpruned and pruned.", run)
    demo.add_argument(
        "--prune", type=words, default=("balanced", "aggressive"), help="presets, with commas between them"
    )
    demo.add_argument("--out", default="runs/demo-clips", metavar="DIR", help="where the clips go")
    demo.add_argument("--clips", type=count, default=7, metavar="N", help="how many (default: 7)")
    add_model(demo)


def run(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    """The benchmark's first clips: the first questions of seven differ in kind."""
    from rich.console import Console

    from pipelines.configuring import load_prune
    from videoprune.engine import Engine
    from videoprune.eval.benchmarks.moving_shapes.load import load
    from videoprune.eval.benchmarks.moving_shapes.make import make_benchmark

    settings = {name: load_prune(name) for name in ("none", *args.prune)}
    engine = Engine(args.model, settings["none"], device=args.device)
    engines = {name: engine.with_prune(prune) for name, prune in settings.items()}
    asked = ask_all(engines, load(make_benchmark(Path(args.out), clips=args.clips)))
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console = Console(markup=False, highlight=False, width=_PAGE_WIDTH)
    console.print(_answers(asked))
    console.print(_totals(asked, list(settings)))
    if args.model == "demo":
        console.print("The model is small and was trained on such clips only: it shows how pruning works.")
    return 0


def ask_all(engines: Mapping[str, Engine], samples: Sequence[Sample]) -> list[Asked]:
    """The first question of every clip, with every engine. Raises ValueError if one cannot be answered."""
    from pipelines.run.model_stage import ModelStage
    from pipelines.run.progress import progress_bar
    from pipelines.run.stages import ClipItem, DecodeStage, group_by_video

    first = next(iter(engines.values()))
    decode = DecodeStage(first.num_frames, first.frame_size)
    stages = {name: ModelStage.around(engine, batch=1) for name, engine in engines.items()}
    items = [ClipItem(item.video, item.samples[:1]) for item in group_by_video(samples)]
    asked = []
    try:
        decode.setup()
        for stage in stages.values():
            stage.setup()  # first calls are slow; they are not the pruning's doing
        with progress_bar() as bar:
            for item in bar.track(items, description="clips"):
                decoded = decode.process(item)
                for name, stage in stages.items():
                    (row,) = stage.process(decoded)
                    if row["outcome"] == "failed":
                        raise ValueError(row["reason"])
                    asked.append(Asked(item.samples[0], name, row))
    finally:
        decode.close()
    return asked


def _answers(asked: Sequence[Asked]) -> Table:
    """One row per clip, in each a line per setting."""
    from rich.table import Table

    table = Table("question (truth)", title="One question per clip", show_lines=True)
    for heading in ("setting", "answer", "visual tokens"):
        table.add_column(heading, no_wrap=True)
    for heading in ("decode", "encode", "fuse", "LLM"):
        table.add_column(f"{heading} s", justify="right", no_wrap=True)
    for _, group in groupby(asked, key=lambda one: one.sample.question_id):
        lines = list(group)
        sample = lines[0].sample
        clip = Path(sample.video).stem.removeprefix("moving_shapes_")
        truth = answer_text(sample.options, sample.answer, "")
        times = [[f"{value:.2f}" for value in _seconds(one.row)] for one in lines]
        cells = (
            [one.setting for one in lines],
            [_said(one) for one in lines],
            [_tokens(one.row) for one in lines],
            [times[0][0]],  # decoded once for all settings
            *([one[i] for one in times] for i in (1, 2, 3)),
        )
        table.add_row(f"{clip}: {sample.question} ({truth})", *("\n".join(c) for c in cells))
    table.caption = "visual tokens: dense → out of the encoders → fused → average over the LLM's layers"
    return table


def _totals(asked: Sequence[Asked], settings: Sequence[str]) -> Table:
    from rich.table import Table

    headings = ("decode s", "encode s", "fuse s", "LLM s", "all s")
    table = Table("setting", "right", "tokens kept %", *headings, title="Totals")
    for name in settings:
        rows = [one.row for one in asked if one.setting == name]
        times = [sum(part) for part in zip(*map(_seconds, rows), strict=True)]
        kept = sum((row["tokens"] or {})["retention"] for row in rows) / len(rows)
        right = f"{sum(row['correct'] for row in rows)} of {len(rows)}"
        table.add_row(name, right, f"{100 * kept:.1f}", *(f"{value:.3f}" for value in (*times, sum(times))))
    return table


def _seconds(row: ResultRow) -> tuple[float, float, float, float]:
    """decode, encode with all that belongs to it, fuse, LLM"""
    s = row["seconds"]
    encode = s["preprocess"] + s["encode"] + s["encode_prune"]
    return s["decode"], encode, s["fuse"], s["llm"] + s["llm_prune"]


def _tokens(row: ResultRow) -> str:
    tokens = row["tokens"] or {}
    out = sum(after for _, after in tokens["encoder"].values())
    return f"{tokens['dense']} → {out} → {tokens['fused']} → {tokens['llm_average']:.0f}"


def _said(one: Asked) -> str:
    text = answer_text(one.sample.options, one.row["prediction"], one.row["text"])
    short = text if len(text) <= _ANSWER_WIDTH else f"{text[: _ANSWER_WIDTH - 1]}…"
    return f"{short} {'✓' if one.row['correct'] else '✗'}"
