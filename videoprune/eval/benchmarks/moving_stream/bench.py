"""Questions about MovingShapes streams, from their folder to their scores: by kind, and by how long ago it was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from videoprune.eval.benchmarks.base import Benchmark, Recipe, bad_predictions, clear_letter, said
from videoprune.eval.benchmarks.folder import (
    VideoFinder,
    find_file,
    lines_of,
    read_json_lines,
    samples_of,
    text_of,
)
from videoprune.eval.benchmarks.moving_shapes.hard_questions import NOT_SHOWN, QUARTERS
from videoprune.eval.benchmarks.moving_stream.questions import ASKED, TITLES
from videoprune.eval.benchmarks.scores import Counts, Row, Scores, answer_notes, figures, questions_of
from videoprune.eval.benchmarks.stream_times import (
    ANSWERED_AT,
    ASKED_AT,
    DUE,
    POLL,
    POLL_OPTIONS,
    POLL_SINCE,
    POLLED,
    answer_time,
    in_time,
    is_standing,
    seconds_of,
    standing_notes,
    without_unasked,
)
from videoprune.prompts import LETTERS, option_texts
from videoprune.types import UNUSABLE, Sample
from videoprune.video.folder import VideoFolder

ACCURACY, ALERTS = "accuracy", "alerts in time"
_DISTANCES = ((60, "under a minute ago"), (300, "1 to 5 minutes ago"), (1200, "5 to 20 minutes ago"))
_FAR = "over 20 minutes ago"
_DATED = ("recall", "order", "when")  # kinds that rest on something at a distance


class MovingStream(Benchmark):
    """Folder: test.jsonl and data/<videoID>.mp4, as `make_streams` writes them."""

    name = "moving-stream"
    title = "MovingShapes streams"
    sizes = {"test": None}  # noqa: RUF012
    recipes = {  # noqa: RUF012
        "official": Recipe(frames=32),
        "minute": Recipe(frames=32, window=60.0),
        "recent": Recipe(frames=4, policy="last", fps=1.0),
    }

    def _load(
        self, folder: Path, split: str, protocol: str, subtitles: bool, videos: VideoFolder
    ) -> list[Sample]:
        path = find_file(folder, (), ("test.jsonl",))
        finder = VideoFinder(videos, ("data",), (".mp4",))
        return samples_of(read_json_lines(path), lambda _, row: _sample(row, finder), path)

    def mark(self, row: Row, protocol: str) -> tuple[str, bool]:
        if is_standing(row):
            return str(row["meta"].get(ANSWERED_AT, "")), in_time(row)
        letter = clear_letter(row)
        return letter, bool(letter) and letter == row["answer"]

    def each(self, rows: Sequence[Row], *, protocol: str, folder: Path | None = None) -> dict[str, Counts]:
        marks = [(is_standing(row), float(self.mark(row, protocol)[1])) for row in rows]
        found: dict[str, Counts] = {ACCURACY: [None if standing else right for standing, right in marks]}
        if any(standing for standing, _ in marks):
            found[ALERTS] = [right if standing else None for standing, right in marks]
        return found

    def compared(self, protocol: str) -> str:
        return ACCURACY

    def score(self, rows: Sequence[Row], *, split: str, protocol: str, folder: Path | None = None) -> Scores:
        self.check(split, protocol)
        rows, unasked = without_unasked(questions_of(rows))
        asked = [row for row in rows if not is_standing(row)]
        standing = [row for row in rows if is_standing(row)]
        right = [float(self.mark(row, protocol)[1]) for row in asked]
        videos = [str(row["video_id"]) for row in asked]
        metrics = {ACCURACY: figures(right, [_groups(r) for r in asked], clusters=videos, order=ASKED)}
        if standing:
            heard = [float(self.mark(row, protocol)[1]) for row in standing]
            kinds = [["will come" if row["meta"][DUE] else "never comes"] for row in standing]
            metrics[ALERTS] = figures(heard, kinds)
        notes = [*answer_notes(rows, None), *standing_notes(standing, unasked)]
        return self.scores(split, protocol, rows, metrics, headline=ACCURACY, notes=notes)

    def submission(self, rows: Sequence[Row], split: str) -> dict[str, Any]:
        """A line per question with its response."""
        lines = [
            {"question_id": r["question_id"], "answer": r["answer"], "response": said(r)} | answer_time(r)
            for r in rows
        ]
        return {"moving_stream_predictions.jsonl": lines}

    def predictions(self, content: Any) -> list[dict[str, Any]]:
        if not isinstance(content, list) or not all(
            isinstance(r, dict) and {"question_id", "response"} <= r.keys() for r in content
        ):
            raise bad_predictions(self.name, content, "a list of {question_id, response}")
        return [
            {"question_id": str(r["question_id"]), "text": str(r["response"] or ""), "meta": answer_time(r)}
            for r in content
        ]


def _sample(row: dict[str, Any], finder: VideoFinder) -> Sample:
    kind = text_of(row, "kind")
    if kind not in TITLES:
        raise ValueError(f"kind={kind!r}; allowed: {', '.join(TITLES)}")
    video, lost = finder.find(text_of(row, "videoID"))
    asked_at = seconds_of(text_of(row, "time_stamp"))
    meta = {
        "category": kind,
        "duration": text_of(row, "duration"),
        "video_id": text_of(row, "video_id"),
        "clues": "\n".join(row.get("clues", [])),
        ASKED_AT: str(asked_at),
    }
    meta |= {UNUSABLE: lost} if lost else {}
    asked = text_of(row, "question_id"), video, text_of(row, "question")
    if kind == "alert":
        due, name = text_of(row, "ground_truth_time_stamp", empty=True), text_of(row, "ground_truth_output")
        meta |= {DUE: str(seconds_of(due)) if due else "", POLL: f"Where is the {name}?"}
        meta |= {POLL_OPTIONS: lines_of([*QUARTERS, NOT_SHOWN]), POLL_SINCE: "0"}
        until = float(seconds_of(due) + POLLED) if due else None
        return Sample(*asked, answer=name, meta=meta, until=until)
    options = row.get("options")
    if not isinstance(options, list) or len(options) != 4 or not all(isinstance(o, str) for o in options):
        raise ValueError(f"options={options!r}; allowed: a list of four texts")
    answer = text_of(row, "answer")
    if answer not in LETTERS[:4]:
        raise ValueError(f"answer={answer!r}; allowed: A, B, C, D")
    meta["options"] = "\n".join(options)
    return Sample(*asked, option_texts(options), answer, meta, until=float(asked_at))


def _groups(row: Row) -> list[str]:
    kind, meta = str(row["category"]), row.get("meta", {})
    clues = str(meta.get("clues", ""))
    if kind not in _DATED or not clues:
        return [kind]
    ago = float(meta[ASKED_AT]) - min(seconds_of(clue.split("-")[1]) for clue in clues.split("\n"))
    return [kind, f"{kind} · {next((name for most, name in _DISTANCES if ago < most), _FAR)}"]
