"""What every report of `videoprune speedup` says of what was asked, and how its answers are scored."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.measure.asked import Asked
from pipelines.measure.environment import hardware, hardware_line
from pipelines.measure.provenance import chosen_on
from pipelines.measure.sample import sample_line
from pipelines.measure.scoring import Scoring
from videoprune.eval.judge import ReplyCache


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
