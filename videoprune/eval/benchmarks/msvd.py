"""MSVD-QA (Xu et al. 2017): one-word answers about short clips, by exact match and by a judge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from videoprune.eval.benchmarks.base import GRID, Benchmark, Recipe
from videoprune.eval.benchmarks.folder import (
    VideoFinder,
    find_file,
    find_optional,
    read_json,
    samples_of,
    text_of,
)
from videoprune.eval.benchmarks.open_ended import (
    EXACT,
    exact,
    exact_counts,
    exact_metrics,
    grid_prompt,
    is_exact,
    judge_lines,
    listed_predictions,
    own_prompt,
    paired_rows,
)
from videoprune.eval.benchmarks.scores import Counts, Row, Scores, answer_notes, questions_of
from videoprune.eval.benchmarks.text_files import numbered_lines
from videoprune.types import UNUSABLE, Sample
from videoprune.video.folder import VideoFolder

TYPES = ("what", "who", "how", "when", "where")
_PLACES = ("msvd_qa", "MSVD-QA", "MSVD_QA", "data/msvd_qa", "annotations")
_EXTENSIONS = (".avi", ".mp4", ".mkv", ".webm", ".mov")


class MSVD(Benchmark):
    """Folder: <split>_qa.json, youtube_mapping.txt, YouTubeClips/<youtubeid>_<start>_<end>.avi or vid<N>.avi.

    Also in the form that Video-LLaVA uses: <split>_q.json and <split>_a.json.
    """

    name = "msvd"
    title = "MSVD-QA"
    sizes = {"train": 30933, "val": 6415, "test": 13157}  # noqa: RUF012
    recipes = {"official": Recipe(), "ig-vlm": GRID}  # noqa: RUF012
    judged = True

    def _load(
        self, folder: Path, split: str, protocol: str, subtitles: bool, videos: VideoFolder
    ) -> list[Sample]:
        places = ("YouTubeClips", "videos", "video", "data", "MSVD_Zero_Shot_QA/videos")
        finder = VideoFinder(videos, places, _EXTENSIONS)
        names = _mapping(folder)
        path = find_file(folder, _PLACES, (f"{split}_qa.json", f"{split}_q.json"))
        if path.name == f"{split}_qa.json":
            rows = read_json(path)
        else:
            rows = paired_rows(path, find_file(folder, _PLACES, (f"{split}_a.json",)))

        def build(number: int, row: dict[str, Any]) -> Sample:
            question = text_of(row, "question")
            answer = text_of(row, "answer")
            if "video_name" in row:
                stems: tuple[str, ...] = (text_of(row, "video_name"),)
                question_id = str(row["question_id"])
            else:
                clip = _number(row, "video_id")
                stems = tuple(n for n in (names.get(clip), f"vid{clip}") if n)
                question_id = str(_number(row, "id"))
            video, lost = finder.find(*stems)
            meta = {"video_id": stems[-1], "category": question_type(question), "index": str(number)}
            return Sample(
                question_id=question_id,
                video=video,
                question=question,
                answer=answer,
                meta=meta | ({UNUSABLE: lost} if lost else {}),
                prompt=grid_prompt(question) if protocol == "ig-vlm" else own_prompt(question),
            )

        return samples_of(rows, build, path)

    def mark(self, row: Row, protocol: str) -> tuple[str, bool]:
        return exact(row), is_exact(row)

    def each(self, rows: Sequence[Row], *, protocol: str, folder: Path | None = None) -> dict[str, Counts]:
        return exact_counts(rows)

    def compared(self, protocol: str) -> str:
        return EXACT

    def score(self, rows: Sequence[Row], *, split: str, protocol: str, folder: Path | None = None) -> Scores:
        self.check(split, protocol)
        rows = questions_of(rows)
        metrics = exact_metrics(rows, [[str(row["category"])] for row in rows], TYPES)
        notes = answer_notes(rows, self.sizes[split])
        return self.scores(split, protocol, rows, metrics, headline=EXACT, notes=notes)

    def submission(self, rows: Sequence[Row], split: str) -> dict[str, Any]:
        """JSON lines of id, question, answer, pred, for evaluators with a judge."""
        return {f"msvd_{split}.jsonl": judge_lines(rows)}

    def predictions(self, content: Any) -> list[dict[str, Any]]:
        rows = listed_predictions(self.name, content)
        for row in rows:
            if "question" in row:
                row["category"] = question_type(row["question"])
        return rows


def question_type(question: str) -> str:
    """The first word, by which the paper's tables group questions."""
    words = question.split()
    return words[0].lower() if words else ""


def _mapping(folder: Path) -> dict[int, str]:
    """Number of a clip -> its name, from lines "<name> vid<N>". Empty without the file: clips are vid<N> then."""
    path = find_optional(folder, _PLACES, ("youtube_mapping.txt", "youtube_video_to_id_mapping.txt"))
    names: dict[int, str] = {}
    for number, line in numbered_lines(path) if path else ():
        words = line.split()
        if len(words) == 2 and words[1].startswith("vid") and words[1][3:].isdigit():
            names[int(words[1][3:])] = words[0]
        else:
            raise ValueError(f"{path}, line {number}: {line!r}; allowed: <name> vid<number>")
    return names


def _number(row: dict[str, Any], name: str) -> int:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name}={value!r}; allowed: a whole number")
    return value
