"""What a speed run measures: settings in turn, on the same clips."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from pipelines.measure.report.rows import BASELINE
from pipelines.run.stages import with_prune
from videoprune.config import PruneConfig
from videoprune.engine import AnyEngine


@dataclass(frozen=True)
class Setting:
    """One method at one retention. label: `method@retain`, or `none`."""

    method: str
    retain: float
    prune: PruneConfig

    @property
    def label(self) -> str:
        return BASELINE if self.method == BASELINE else f"{self.method}@{self.retain:g}"


@dataclass(frozen=True)
class Plan:
    """What is measured: settings in turn, on these numbers of frames, with so many clips in a call, `runs` times each
    after one to warm up. answers: whether all questions are asked, or times are all that is wanted."""

    settings: tuple[Setting, ...]
    frames: tuple[int, ...]
    concurrency: tuple[int, ...]
    runs: int
    answers: bool = True
    max_new_tokens: int = 64


def prepared(engine: AnyEngine, setting: Setting) -> AnyEngine:
    """`engine` with the settings of `setting`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that lambda is not calibrated is said once, before
        return with_prune(engine, setting.prune)
