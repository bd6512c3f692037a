"""Rows of Video-MME as published -> samples and prompts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from videoprune.eval.benchmarks.folder import read_json, read_json_lines, read_parquet, text_of
from videoprune.eval.benchmarks.subtitles import PLACE, SUBTITLE_FILE, SUBTITLE_FRAMES, SUBTITLE_RULE
from videoprune.prompts import LETTERS, option_texts
from videoprune.types import Sample

_INSTRUCTION = (
    "Select the best answer to the following multiple-choice question based on the video{more}. "
    "Respond with only the letter (A, B, C, or D) of the correct option."
)
_LMMS_FRAMES = 32
_COLUMNS = ("video_id", "duration", "domain", "sub_category", "task_type", "question_id", "question")
# The script's first version and its later one call the same things differently.
_OLD_NAMES = {
    "duration": "duration_category",
    "domain": "video_category",
    "sub_category": "video_subcategory",
}


def prompt(question: str, options: Sequence[str], protocol: str, subtitles: bool) -> str:
    """The text of a question. options: as published, with their letters. See docs/benchmarks/videomme.md."""
    body = "\n".join([question, *options])
    if protocol == "official":
        before = f"This video's subtitles are listed below:\n{PLACE}\n" if subtitles else ""
        return f"{before}{_INSTRUCTION.format(more='')}\n{body}\nThe best answer is:"
    instruction = _INSTRUCTION.format(more=" and the subtitles")  # in its task without subtitles too
    if subtitles:
        before = f"This video's subtitles are listed below: \n{PLACE}\n"
        return f"{before}{instruction}\n{body}\nThe best answer is:"
    return f"{instruction}\n{body}\n\nAnswer with the option's letter from the given choices directly."


def published_rows(path: Path) -> list[Any]:
    """One row per question, from parquet, JSON lines, or JSON, flat or by video."""
    if path.suffix == ".parquet":
        return read_parquet(path)
    rows = read_json_lines(path) if path.suffix == ".jsonl" else read_json(path)
    if not isinstance(rows, list):
        raise ValueError(f"{path}: {type(rows).__name__}; allowed: a list of questions or of videos")
    return flat_rows(rows) if rows and isinstance(rows[0], dict) and "questions" in rows[0] else rows


def flat_rows(videos: list[Any]) -> list[dict[str, Any]]:
    """The nested form of results and of the template as one row per question, under the later names."""
    rows = []
    for video in videos:
        shared = {k: v for k, v in video.items() if k != "questions"}
        shared |= {new: shared[old] for new, old in _OLD_NAMES.items() if new not in shared and old in shared}
        rows += [shared | question for question in video["questions"]]
    return rows


def row_sample(number: int, row: dict[str, Any]) -> tuple[Sample, str]:
    """A row as a Sample without video and prompt, and the name of its video's file."""
    cells = {name: text_of(row, name) for name in _COLUMNS}
    options = row.get("options")
    if (
        not isinstance(options, list | tuple)
        or len(options) != 4
        or not all(isinstance(o, str) for o in options)
    ):
        raise ValueError(f"options={options!r}; allowed: a list of four texts")
    answer = text_of(row, "answer")
    if answer not in LETTERS[:4]:
        raise ValueError(f"answer={answer!r}; allowed: A, B, C, D")
    meta = {
        "video_id": cells["video_id"],
        "duration": cells["duration"],
        "category": cells["task_type"],
        "domain": cells["domain"],
        "sub_category": cells["sub_category"],
        "options": "\n".join(options),
        "index": str(number),
    }
    url = re.search(r"[?&]v=([\w-]+)", str(row.get("url") or ""))
    name = row.get("videoID") or (url[1] if url else cells["video_id"])
    sample = Sample(cells["question_id"], "", cells["question"], option_texts(options), answer, meta)
    return sample, str(name)


def subtitle_meta(protocol: str, path: str, lost: str) -> dict[str, str]:
    """Where a video's subtitles are, by which rule they are shown, or why there are none."""
    meta = {SUBTITLE_RULE: protocol, SUBTITLE_FRAMES: str(_LMMS_FRAMES), SUBTITLE_FILE: "" if lost else path}
    return meta | ({"subtitle_reason": lost} if lost else {})
