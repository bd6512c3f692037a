"""`videoprune demo`: makes clips, asks about each, unpruned and pruned, shows what each stage kept."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipelines.ask import answer_clip, answer_text
from pipelines.configuring import load_prune
from pipelines.run.progress import progress_bar
from pipelines.run.stages import DecodeStage, ModelStage, group_by_video, with_prune
from videoprune.config import PruneConfig
from videoprune.engine import Engine
from videoprune.eval.benchmarks.moving_shapes.load import load
from videoprune.eval.benchmarks.moving_shapes.make import make_benchmark
from videoprune.types import Answer, Outcome, Sample

_ANSWER_WIDTH = 20
_PAGE_WIDTH = 120  # where the output is no terminal
STAGES = ("decode", "encode", "fuse", "llm", "llm_prune")


@dataclass(frozen=True)
class Asked:
    """One question answered with one setting. seconds: by stage."""

    sample: Sample
    setting: str
    answer: Answer
    seconds: dict[str, float]

    @property
    def correct(self) -> bool:
        return self.answer.choice == self.sample.answer


def run(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    """`videoprune demo`. The benchmark's first clips: the first questions of seven differ in kind."""
    settings = {name: load_prune(name) for name in ("none", *args.prune.split(","))}
    engine = Engine(args.model, PruneConfig(), device=args.device)
    engines = {name: with_prune(engine, prune) for name, prune in settings.items()}
    samples = load(make_benchmark(Path(args.out), clips=args.clips))
    asked = ask_all(engines, samples)
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console = Console(markup=False, highlight=False, width=_PAGE_WIDTH)
    console.print(_answers(asked))
    console.print(_totals(asked, list(settings)))
    if args.model == "demo":
        console.print("The model is small and was trained on such clips only: it shows how pruning works.")
    return 0


def ask_all(engines: dict[str, Engine], samples: Sequence[Sample]) -> list[Asked]:
    """The first question of every clip, with every engine. Raises ValueError if a clip cannot be read."""
    first = next(iter(engines.values()))
    decode = DecodeStage(first.num_frames, first.frame_size)
    items = group_by_video(samples)
    asked = []
    try:
        decode.setup()
        for engine in engines.values():
            ModelStage.around(engine).setup()  # first calls are slow; they are not the pruning's doing
        with progress_bar() as bar:
            for item in bar.track(items, description="clips"):
                decoded = decode.process(item)
                if isinstance(decoded.frames, Outcome):
                    raise ValueError(decoded.frames.reason)
                for name, engine in engines.items():
                    seconds = {"decode": decoded.seconds}
                    answer = answer_clip(engine, decoded.frames, item.samples[0], seconds)
                    asked.append(Asked(item.samples[0], name, answer, seconds))
    finally:
        decode.close()
    return asked


def _answers(asked: Sequence[Asked]) -> Table:
    """One row per clip, in each a line per setting."""
    table = Table("question (truth)", title="One question per clip", show_lines=True)
    for heading in ("setting", "answer", "visual tokens"):
        table.add_column(heading, no_wrap=True)
    for heading in ("decode", "encode", "fuse", "LLM"):
        table.add_column(f"{heading} s", justify="right", no_wrap=True)
    for _, group in groupby(asked, key=lambda one: one.sample.question_id):
        lines = list(group)
        sample = lines[0].sample
        clip = Path(sample.video).stem.removeprefix("moving_shapes_")
        cells = (
            [one.setting for one in lines],
            [f"{_short(answer_text(sample, one.answer))} {'✓' if one.correct else '✗'}" for one in lines],
            [_tokens(one.answer) for one in lines],
            [f"{lines[0].seconds['decode']:.2f}"],
            [f"{one.seconds['encode']:.2f}" for one in lines],
            [f"{one.seconds['fuse']:.2f}" for one in lines],
            [f"{one.seconds['llm'] + one.seconds['llm_prune']:.2f}" for one in lines],
        )
        table.add_row(f"{clip}: {sample.question} {_truth(sample)}", *("\n".join(c) for c in cells))
    table.caption = "visual tokens: dense → out of the encoders → fused → average over the LLM's layers"
    return table


def _totals(asked: Sequence[Asked], settings: Sequence[str]) -> Table:
    headings = ("decode s", "encode s", "fuse s", "LLM s", "all s")
    table = Table("setting", "right", "tokens kept %", *headings, title="Totals")
    for name in settings:
        rows = [one for one in asked if one.setting == name]
        spent = {stage: sum(one.seconds[stage] for one in rows) for stage in STAGES}
        kept = sum(one.answer.trace.retention for one in rows) / len(rows)
        right = f"{sum(one.correct for one in rows)} of {len(rows)}"
        llm = spent["llm"] + spent["llm_prune"]
        times = (spent["decode"], spent["encode"], spent["fuse"], llm, sum(spent.values()))
        table.add_row(name, right, f"{100 * kept:.1f}", *(f"{value:.3f}" for value in times))
    return table


def _truth(sample: Sample) -> str:
    return f"({sample.answer}. {sample.options[ord(sample.answer) - ord('A')]})"


def _tokens(answer: Answer) -> str:
    trace = answer.trace
    out = sum(after for _, after in trace.encoder.values())
    return f"{trace.dense} → {out} → {trace.fused} → {trace.llm_average:.0f}"


def _short(text: str) -> str:
    return text if len(text) <= _ANSWER_WIDTH else f"{text[: _ANSWER_WIDTH - 1]}…"
