"""ActivityNet-QA (Yu et al. 2019): nine kinds of questions about long videos, by exact match and by a judge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from videoprune.eval.benchmarks.base import GRID, Benchmark, Recipe
from videoprune.eval.benchmarks.folder import VideoFinder, find_file, samples_of, text_of
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
from videoprune.eval.benchmarks.scores import (
    Counts,
    Row,
    Scores,
    answer_notes,
    figure,
    file_order,
    questions_of,
)
from videoprune.types import UNUSABLE, Sample
from videoprune.video.folder import VideoFolder

TYPES = ("motion", "spatial", "temporal", "yes/no", "color", "object", "location", "number", "other")
_FIRST_FREE = 3  # the paper calls the types from here on "free"
_PLACES = ("activitynet_qa", "ActivityNet-QA", "activitynet-qa/dataset", "dataset", "annotations")
_EXTENSIONS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".gif")


class ActivityNet(Benchmark):
    """Folder: <split>_q.json, <split>_a.json, videos/v_<name>.mp4 (or all_test/)."""

    name = "activitynet"
    title = "ActivityNet-QA"
    sizes = {"train": 32000, "val": 18000, "test": 8000}  # noqa: RUF012
    recipes = {  # noqa: RUF012
        "official": Recipe(),
        "lmms-eval": Recipe(max_new_tokens=64),
        "ig-vlm": GRID,
    }
    judged = True

    def _load(
        self, folder: Path, split: str, protocol: str, subtitles: bool, videos: VideoFolder
    ) -> list[Sample]:
        path = find_file(folder, _PLACES, (f"{split}_q.json",))
        rows = paired_rows(path, find_file(folder, _PLACES, (f"{split}_a.json",)))
        finder = VideoFinder(videos, ("videos", "all_test", "video", "data"), _EXTENSIONS)

        def build(number: int, row: dict[str, Any]) -> Sample:
            name, question = text_of(row, "video_name"), text_of(row, "question")
            kind = row.get("type")
            if not isinstance(kind, int) or isinstance(kind, bool) or kind not in range(len(TYPES)):
                raise ValueError(f"type={kind!r}; allowed: 0 to {len(TYPES) - 1}")
            video, lost = finder.find(f"v_{name}", name)
            meta = {"video_id": name, "category": TYPES[kind], "type": str(kind), "index": str(number)}
            return Sample(
                question_id=text_of(row, "question_id"),
                video=video,
                question=question,
                answer=text_of(row, "answer"),
                meta=meta | ({UNUSABLE: lost} if lost else {}),
                prompt=prompt(question, protocol),
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
        rows = file_order(questions_of(rows))
        more = exact_metrics(rows, [_groups(row) for row in rows], (*TYPES, "free"))
        corrected = more.pop(EXACT)
        official = corrected | {"free": _official_free(rows)}
        metrics = {EXACT: official, "exact match, free corrected": corrected, **more}
        notes = answer_notes(rows, self.sizes[split])
        return self.scores(split, protocol, rows, metrics, headline=EXACT, notes=notes)

    def submission(self, rows: Sequence[Row], split: str) -> dict[str, Any]:
        """The list of question_id and answer that the script reads, and JSON lines for evaluators with a judge."""
        rows = [row for row in file_order(rows) if row["answer"]]
        return {
            f"activitynet_{split}_pred.json": [
                {"question_id": r["question_id"], "answer": exact(r)}
                for r in rows
                if r["outcome"] != "failed"
            ],
            f"activitynet_{split}.jsonl": judge_lines(rows),
        }

    def predictions(self, content: Any) -> list[dict[str, Any]]:
        return listed_predictions(self.name, content)


def prompt(question: str, protocol: str) -> str:
    """The text of a question. lmms-eval and IG-VLM keep stray white space in it, so it is kept for them."""
    if protocol == "lmms-eval":
        return f"{question.capitalize()}? Answer the question using a single word or phrase."
    return grid_prompt(question) if protocol == "ig-vlm" else own_prompt(question)


def _groups(row: Row) -> list[str]:
    kind = str(row["category"])
    return [kind, "free"] if kind in TYPES[_FIRST_FREE:] else [kind]


def _official_free(rows: Sequence[Row]) -> dict[str, Any]:
    """The script's figure: right answers of types 3 to 8 over the counts of whichever types appear fourth and
    later in the file, which are others. It may exceed 100 %."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["category"]] = counts.get(row["category"], 0) + 1
    right = sum(is_exact(row) for row in rows if row["category"] in TYPES[_FIRST_FREE:])
    return figure(right, sum(list(counts.values())[_FIRST_FREE:]))
