"""StreamingBench (Lin et al. 2024): 900 videos, five questions each, asked at their time; some wait for something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from videoprune.eval.benchmarks.base import Benchmark, Recipe, bad_predictions, clear_letter, said
from videoprune.eval.benchmarks.folder import VideoFinder, find_file, samples_of
from videoprune.eval.benchmarks.scores import (
    Counts,
    Figures,
    Row,
    Scores,
    answer_notes,
    figures,
    of_all,
    questions_of,
)
from videoprune.eval.benchmarks.stream_times import (
    ANSWERED_AT,
    DUE,
    POLLED,
    answer_time,
    in_time,
    is_standing,
    seconds_of,
    standing_notes,
    time_stamp,
    without_unasked,
)
from videoprune.eval.benchmarks.streamingbench_rows import (
    PARTS,
    context_after,
    flat_rows,
    published_rows,
    row_sample,
    shown_options,
)
from videoprune.types import Sample
from videoprune.video.folder import VideoFolder

OFFICIAL, CORRECTED, TIME = "official", "corrected", "official, time"
_MODEL = "videoprune"  # the key of responses in the file that count.py reads
_KNOWN = (
    *("question_id", "video", "video_path", "task_type", "question", "time_stamp", "answer", "options"),
    *("required_ability", "cause", "effect", "audio_path", "time", "results"),
    *("ground_truth_time_stamp", "ground_truth_output"),
)


class StreamingBench(Benchmark):
    """Folder: questions_<part>.json or the CSVs, and the videos, in videos/ or as they are unzipped."""

    name = "streamingbench"
    title = "StreamingBench"
    sizes = {name: part.questions for name, part in PARTS.items()}  # noqa: RUF012
    recipes = {  # noqa: RUF012
        "official": Recipe(),
        "official-60s": Recipe(window=60.0),
        "recent": Recipe(frames=4, policy="last", fps=1.0),
    }

    def _load(
        self, folder: Path, split: str, protocol: str, subtitles: bool, videos: VideoFolder
    ) -> list[Sample]:
        part = PARTS[split]
        path = find_file(folder, ("src/data", "data", "StreamingBench", "annotations"), part.files)
        places = ("videos", "src/data/videos", f"data/{part.folder}", part.folder)
        finder = VideoFinder(videos, places, (".mp4", ".mkv", ".webm"))
        contexts: dict[str, str] = {}

        def build(number: int, row: dict[str, Any]) -> Sample:
            name = str(next(iter(row.get("video") or ("",))))
            sample = row_sample(number, row, split, contexts.get(name, ""))
            if split == "sqa":
                contexts[name] = context_after(contexts.get(name, ""), row, shown_options(row))
            return finder.placed(sample, *row["video"])

        return samples_of(published_rows(path, split), build, path)

    def mark(self, row: Row, protocol: str) -> tuple[str, bool]:
        if is_standing(row):
            return str(row["meta"].get(ANSWERED_AT, "")), _spoken(row)
        letter = said(row)[:1]
        return letter, bool(letter) and letter == row["answer"]

    def each(self, rows: Sequence[Row], *, protocol: str, folder: Path | None = None) -> dict[str, Counts]:
        return {
            OFFICIAL: [
                float(self.mark(row, protocol)[1]) if said(row) or is_standing(row) else None for row in rows
            ],
            CORRECTED: [float(_clear(row)) for row in rows],
        }

    def compared(self, protocol: str) -> str:
        return CORRECTED

    def score(self, rows: Sequence[Row], *, split: str, protocol: str, folder: Path | None = None) -> Scores:
        self.check(split, protocol)
        rows, unasked = without_unasked(questions_of(rows))
        counted = self.each(rows, protocol=protocol)
        kinds = [[str(row["category"])] for row in rows]
        videos = [str(row["video_id"]) for row in rows]
        metrics: dict[str, Figures] = {}
        if split == "proactive":
            metrics[TIME] = figures([float(in_time(row)) for row in rows], kinds)
        answered = [(v, k) for v, k in zip(counted[OFFICIAL], kinds, strict=True) if v is not None]
        metrics[OFFICIAL] = figures([v for v, _ in answered], [k for _, k in answered])
        metrics[CORRECTED] = figures(of_all(counted[CORRECTED]), kinds, clusters=videos)
        notes = answer_notes(rows, self.sizes[split])
        notes += standing_notes([r for r in rows if is_standing(r)], unasked)
        if len(answered) < len(rows):
            notes.append(f"official: {len(rows) - len(answered)} without a text leave the denominator")
        if split == "omni":
            notes.append("no sound is given to the model, which these questions are about")
        return self.scores(split, protocol, rows, metrics, headline=OFFICIAL, notes=notes)

    def submission(self, rows: Sequence[Row], split: str) -> dict[str, Any]:
        """The file that count.py reads, with --model videoprune; of sequential questions a list per video."""
        entries = []
        for row in rows:
            meta = row.get("meta", {})
            question: dict[str, Any] = {
                "question_id": row["question_id"],
                "task_type": row["category"],
                "question": row["question"],
                _MODEL: said(row),
            }
            if is_standing(row):
                question |= {
                    "ground_truth_time_stamp": time_stamp(int(float(meta[DUE]))),
                    "ground_truth_output": row["answer"],
                    _MODEL: _dialog(row),
                }
            else:
                question |= {"answer": row["answer"], "options": str(meta.get("options", "")).split("\n")}
            entries.append({"video_path": f"./videos/{row['video_id']}.mp4", "questions": [question]})
        if split != "sqa":
            return {f"streamingbench_{split}.json": entries}
        groups: dict[str, list[Any]] = {}
        for entry in entries:
            groups.setdefault(str(entry["video_path"]), []).append(entry)
        return {f"streamingbench_{split}.json": list(groups.values())}

    def predictions(self, content: Any) -> list[dict[str, Any]]:
        form = "a list of videos with `questions`, each with the response under one further key"
        try:
            rows = flat_rows(content)
        except ValueError as error:
            raise bad_predictions(self.name, content, form) from error
        return [self._predicted(row, form) for row in rows]

    def _predicted(self, row: Any, form: str) -> dict[str, Any]:
        models = [key for key in row if key not in _KNOWN] if isinstance(row, dict) else []
        if len(models) != 1 or "question_id" not in row:
            raise bad_predictions(self.name, row, form)
        response = row[models[0]]
        found: dict[str, Any] = {
            "question_id": row["question_id"],
            "video_id": str(row["video"][0]),
            "category": str(row.get("task_type", "")),
            "question": str(row.get("question", "")),
            "answer": str(row.get("answer", row.get("ground_truth_output", ""))),
        }
        if isinstance(response, Mapping):
            last = (response.get("dialog_history") or [{}])[-1]
            due = seconds_of(str(row.get("ground_truth_time_stamp")))
            # The script looks at the time of the last reply, whether or not it said yes.
            time = {DUE: str(due), ANSWERED_AT: str(last.get("time", ""))}
            return found | {"text": str(last.get("content", "")), "meta": time}
        options = row.get("options") if isinstance(row.get("options"), list) else []
        return found | {"text": str(response or ""), "meta": {"options": "\n".join(map(str, options))}}


def _clear(row: Row) -> bool:
    """Whether the answer is given for certain, or in time and in whatever case."""
    if is_standing(row):
        return in_time(row) and str(row["answer"]).lower() in said(row).lower()
    return clear_letter(row) == row["answer"]


def _spoken(row: Row) -> bool:
    """The script's answer_correct: within two seconds, and the wanted words are in what was said then."""
    return in_time(row) and str(row["answer"]) in said(row)


def _dialog(row: Row) -> dict[str, Any]:
    """A standing question's answer as the script keeps it: of silence, that of the last time it would have asked."""
    told = answer_time(row).get(ANSWERED_AT, "")
    time = float(told) if told else float(row["meta"][DUE]) + POLLED
    return {
        "answered": float(told) if told else False,
        "dialog_history": [{"role": "assistant", "content": said(row), "time": time}],
    }
