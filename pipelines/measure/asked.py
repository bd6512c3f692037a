"""What `videoprune speedup` asks: a benchmark's videos in the order of a sample, and those that are taken."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.judging import Judge, open_judge
from pipelines.measure.provenance import clips_line, seed_of
from pipelines.measure.sample import in_turn, limited, sample_facts
from pipelines.run.stages import ClipItem
from pipelines.run.tasks import MOVING_SHAPES, Task, open_task
from videoprune.eval.benchmarks.registry import benchmark
from videoprune.types import Sample


@dataclass(frozen=True)
class Asked:
    """items: all videos, so ordered that their beginning is a sample; chosen: those that are taken. clips: which these
    are, for a report. judge: of open answers."""

    task: Task
    items: list[ClipItem]
    chosen: list[ClipItem]
    seed: int
    clips: str
    judge: Judge | None = None

    @property
    def samples(self) -> list[Sample]:
        return [sample for item in self.chosen for sample in item.samples]

    def facts(self) -> dict[str, Any]:
        """What sample.json holds."""
        return {"benchmark": self.task.title, **sample_facts(self.items, self.chosen, self.seed)}


def open_asked(args: argparse.Namespace) -> Asked:
    """The benchmark that the arguments of `videoprune speedup` name. Raises ValueError for what does not fit together.

    args.frames may be several numbers and args.limit is of a sample, so the task sees neither.
    """
    own = args.benchmark == MOVING_SHAPES
    if args.judge and own:
        raise ValueError(f"judge={args.judge!r}; {MOVING_SHAPES} is not scored by a judge")
    task = open_task(argparse.Namespace(**{**vars(args), "frames": None, "limit": None, "shard": None}))
    judge = open_judge(benchmark(args.benchmark), args) if args.judge else None
    items = in_turn(task.samples, args.seed)
    if own:
        clips = clips_line(seed_of(Path(args.data)) if args.data else args.seed)
    else:
        clips = f"{task.title}; no choice was made on it"
    return Asked(task, items, limited(items, args.limit), args.seed, clips, judge)
