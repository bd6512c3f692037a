"""What a benchmark is made of: rows -> samples, a protocol's prompt and frames, a letter or word, scores.

A row is a line of results.jsonl: question_id, video_id, question, answer, text (what the model said), outcome,
and in `meta` what the scores need. Rows that were made from a file of predictions look the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from videoprune.choice import parse_choice
from videoprune.eval.benchmarks.scores import Counts, Row, Scores
from videoprune.prompts import option_texts
from videoprune.types import Sample
from videoprune.video.folder import LocalFolder, VideoFolder
from videoprune.video.sample import Policy


@dataclass(frozen=True)
class Recipe:
    """How a protocol shows a video, and how long an answer may be.

    frames: how many (None: as many as the model is best given). policy: which, see `video.sample.Sampling`.
    fps, window: what the policy needs, likewise. columns: above 0, they come as one image with that many side by side.
    """

    frames: int | None = None
    policy: Policy = "uniform"
    columns: int = 0
    max_new_tokens: int = 16
    fps: float | None = None
    window: float | None = None

    def sampling(self) -> dict[str, Any]:
        """Which frames, beside how many: options of a decoder."""
        names = ("policy", "fps", "window", "columns")
        return {name: getattr(self, name) for name in names}


GRID = Recipe(frames=6, policy="starts", columns=2, max_new_tokens=512)


class Benchmark(ABC):
    """One benchmark. `recipes` names its protocols; `sizes` its splits and how many questions each has (None: any)."""

    name: ClassVar[str]
    title: ClassVar[str]
    sizes: ClassVar[Mapping[str, int | None]]
    recipes: ClassVar[dict[str, Recipe]]
    judged: ClassVar[bool] = False  # whether papers score it with a language model as judge
    has_subtitles: ClassVar[bool] = False

    def load(
        self,
        folder: Path,
        *,
        split: str,
        protocol: str = "official",
        subtitles: bool = False,
        videos: VideoFolder | None = None,
    ) -> list[Sample]:
        """The questions of a split in the order of its file, each with the protocol's prompt. videos: where they lie,
        if not in `folder`.

        A video, subtitle file or row that is missing or broken is a Sample that says so in its `meta`. Raises
        ValueError for a folder without the files, and for a split or protocol that there is not.
        """
        self.check(split, protocol)
        if subtitles and not self.has_subtitles:
            raise ValueError(f"subtitles=True; allowed: False, {self.title} has none")
        return self._load(Path(folder), split, protocol, subtitles, videos or LocalFolder(Path(folder)))

    def check(self, split: str, protocol: str) -> None:
        if split not in self.sizes:
            raise ValueError(f"split={split!r}; allowed for {self.name}: {', '.join(self.sizes)}")
        if protocol not in self.recipes:
            raise ValueError(f"protocol={protocol!r}; allowed for {self.name}: {', '.join(self.recipes)}")

    @abstractmethod
    def _load(
        self, folder: Path, split: str, protocol: str, subtitles: bool, videos: VideoFolder
    ) -> list[Sample]: ...

    @abstractmethod
    def mark(self, row: Row, protocol: str) -> tuple[str, bool]:
        """What is read from a row's text by the protocol's rule, and whether that is right."""

    @abstractmethod
    def each(self, rows: Sequence[Row], *, protocol: str, folder: Path | None = None) -> dict[str, Counts]:
        """By metric, what each of `rows`, all of them questions, counts in it: what `score` averages, row by row."""

    def compared(self, protocol: str) -> str:
        """The metric by which runs on the same questions are compared: in it no question leaves the denominator."""
        return protocol

    @abstractmethod
    def score(self, rows: Sequence[Row], *, split: str, protocol: str, folder: Path | None = None) -> Scores:
        """Scores of rows by the protocol's rules, faults included, with the corrected figure beside them.

        folder: the benchmark's, for what else its scores need.
        """

    def scores(
        self,
        split: str,
        protocol: str,
        rows: Sequence[Row],
        metrics: dict[str, Any],
        *,
        headline: str,
        notes: Sequence[str],
        more: Mapping[str, Any] | None = None,
    ) -> Scores:
        """What `score` returns, with the size of the split beside the number of rows. more: further entries."""
        return Scores(
            self.name,
            split,
            protocol,
            headline=headline,
            metrics=metrics,
            questions=len(rows),
            expected=self.sizes[split],
            notes=tuple(notes),
            more=dict(more or {}),
        )

    @abstractmethod
    def submission(self, rows: Sequence[Row], split: str) -> dict[str, Any]:
        """The official form of predictions: file name -> what it holds as JSON."""

    @abstractmethod
    def predictions(self, content: Any) -> list[dict[str, Any]]:
        """Rows from the content of a file in one of the official forms, with at least question_id and text.

        Raises ValueError that says which forms are allowed.
        """


def bad_predictions(name: str, content: Any, forms: str) -> ValueError:
    shown = repr(content)
    shown = shown if len(shown) < 80 else f"{shown[:77]}..."
    return ValueError(f"predictions={shown}; allowed for {name}: {forms}")


def said(row: Mapping[str, Any]) -> str:
    """What the model said; "" where the question has no answer."""
    return "" if row.get("outcome") == "failed" else str(row.get("text", ""))


def clear_letter(row: Row) -> str:
    """The letter of four options that a text names for certain, "" if none: what rules by the text's form mean to
    read. The row's meta holds the options, a line each."""
    options = option_texts(str(row.get("meta", {}).get("options", "")).split("\n"))
    return parse_choice(said(row), 4, options if len(options) == 4 else ())
