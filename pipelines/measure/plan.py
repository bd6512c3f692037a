"""What is measured: settings, and for `videoprune speedup` on which clips, together with how many, and how often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.measure.methods import method_config
from videoprune.config import PruneConfig
from videoprune.prune.counts import with_fixed_shares

STOCK, BASELINE = "stock", "none"
_NEAR = 0.02  # of the wanted retention: what is this near is at it


@dataclass(frozen=True)
class Setting:
    """One method at one retention, 1.0 where none was asked for. prune: None for the stock model without `apply`.

    share: the method's own, where it was searched for because the method cannot hit the retention: see `bracket`.
    """

    method: str
    retain: float
    prune: PruneConfig | None
    share: float | None = None

    @property
    def label(self) -> str:
        """`stock`, `none`, `balanced`, `method@retain`, or `method@retain~share`."""
        name = self.method if self.retain == 1 else f"{self.method}@{self.retain:g}"
        return name if self.share is None else f"{name}~{self.share:g}"

    @property
    def config(self) -> PruneConfig:
        """For reckoning: the stock model computes on what the unpruned one does."""
        return self.prune or PruneConfig()


@dataclass(frozen=True)
class Plan:
    """Settings in turn, on these numbers of frames, with so many clips in a call, `runs` times each after a warm-up.

    answers: whether all questions are asked, or times are all that is wanted.
    """

    settings: tuple[Setting, ...]
    frames: tuple[int, ...]
    concurrency: tuple[int, ...]
    runs: int
    answers: bool = True
    max_new_tokens: int = 64

    @property
    def labels(self) -> list[str]:
        return [s.label for s in self.settings]

    def setting(self, label: str) -> Setting:
        return self.settings[self.labels.index(label)]

    def steps(self, clips: int) -> int:
        """For a progress bar: timed rounds, and clips that are asked about."""
        return len(self.frames) * (len(self.concurrency) * self.runs + (clips if self.answers else 0))


def is_at(retention: float, wanted: float) -> bool:
    """Whether a measured retention is the wanted one."""
    return abs(retention - wanted) <= _NEAR * wanted


def settings_of(methods: Sequence[str], retain: Sequence[float]) -> tuple[Setting, ...]:
    """Every method at every retention, larger shares first. Raises ValueError as `method_config` does."""
    shares = sorted(retain, reverse=True)
    wanted = [m for m in methods if m not in (STOCK, BASELINE)]
    return tuple(Setting(m, r, with_fixed_shares(method_config(m, r))) for m in wanted for r in shares)
