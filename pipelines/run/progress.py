"""The progress bar of long runs: done, rate, time left. It goes to stderr; results go to stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from pipelines.run.status import RunStatus
from videoprune.result_row import ResultRow


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.2f}/s" if task.speed else "-/s")


class RunProgress:
    """A run's status: under a bar on a terminal, elsewhere a line now and then, the last one at the end."""

    def __init__(self, status: RunStatus, *, shown: bool = True, seconds: float = 60.0) -> None:
        self.status, self.shown, self.seconds = status, shown, seconds
        self.bar = progress_bar()
        self.bar.disable = not (shown and self.bar.console.is_terminal)
        self.task = self.bar.add_task("questions", total=status.total, completed=status.done)
        self._told = time.monotonic()

    def __enter__(self) -> RunProgress:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
        self._tell()

    def add(self, rows: Sequence[ResultRow]) -> None:
        """One clip's new rows."""
        self.status.add(rows)
        if not self.bar.disable:
            self.bar.update(self.task, completed=self.status.done, description=self.status.line())
        elif time.monotonic() - self._told >= self.seconds:
            self._tell()

    def _tell(self) -> None:
        self._told = time.monotonic()
        if self.shown:
            print(f"videoprune: {self.status.line()}", file=sys.stderr, flush=True)


def progress_bar(*, shown: bool = True) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not shown,
    )
