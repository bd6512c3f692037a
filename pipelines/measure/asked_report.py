"""What runs of `videoprune speedup` share, whichever engine answers: facts, scoring, and what is told at the end."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines.measure.asked import Asked
from pipelines.measure.environment import hardware, hardware_line
from pipelines.measure.provenance import chosen_on
from pipelines.measure.sample import sample_line
from pipelines.measure.scoring import Scoring
from pipelines.run.results import write_whole
from videoprune.eval.benchmarks.base import Recipe
from videoprune.eval.judge import ReplyCache
from videoprune.models.loading import RANDOM

_RANDOM_ANSWER = 8  # tokens; random weights never end an answer


def answer_tokens(model: str, recipe: Recipe) -> int:
    """At most, of an answer."""
    return _RANDOM_ANSWER if model.startswith(RANDOM) else recipe.max_new_tokens


def asked_facts(asked: Asked) -> dict[str, Any]:
    """For `keep_facts`: figures about other videos do not go into the same folder."""
    return {"benchmark": asked.task.facts, "first": asked.samples[0].video, "seed": asked.seed}


def asked_meta(model: str, asked: Asked, settings_chosen_on: str | None) -> dict[str, Any]:
    """settings_chosen_on: what the user says of settings of theirs."""
    return {
        "dataset": asked.task.title,
        "model": model,
        "sample": sample_line(asked.facts()),
        "clips": asked.clips,
        "chosen_on": settings_chosen_on or chosen_on(),
        "metric": asked.task.compared,
        "hardware": hardware_line(hardware()),
        "command": "videoprune " + " ".join(sys.argv[1:]),
    }


def asked_scoring(asked: Asked, out: Path) -> Scoring:
    """A judge's replies are kept in `out`."""
    judge, replies = asked.judge, out / "judge.jsonl"
    judged = partial(judge.verdicts, kept=ReplyCache(replies)) if judge else None
    return Scoring(asked.task, asked.samples, judged)


def show_tables(tables: str, out: Path, files: Sequence[str]) -> None:
    """Keep them as tables.md, print them, and say which files are there."""
    write_whole(out / "tables.md", tables)
    Console(markup=False, highlight=False).print(tables, soft_wrap=True)
    print(f"{out}: {', '.join(files)}")


def tell_failed(rows: Sequence[Mapping[str, Any]]) -> int:
    """How many questions failed, said if there are any. rows: of the report."""
    failed: int = max((r["accuracy"]["failed"] for r in rows), default=0)
    if failed:
        print(f"{failed} questions failed; their rows in answers.jsonl say why", file=sys.stderr)
    return failed
