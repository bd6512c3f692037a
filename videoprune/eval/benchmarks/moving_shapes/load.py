"""Reads a MovingShapes folder: rows in the columns of Video-MME -> Sample."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from videoprune.eval.benchmarks.folder import contents
from videoprune.eval.benchmarks.text_files import numbered_lines
from videoprune.prompts import LETTERS, option_texts
from videoprune.types import Sample

_TEXT_COLUMNS = ("video_id", "duration", "sub_category", "videoID", "question_id", "question", "answer")


def load(folder: Path, limit: int | None = None) -> list[Sample]:
    """The first `limit` questions of the benchmark in `folder`, all if None, in file order.

    A video that is missing still has its Samples: reading it fails later, on record. Options lose their
    letters. `meta` holds category, duration and video_id.
    Raises ValueError if `folder` is not such a folder, and for a broken row, with its line number: no row is
    ever skipped in silence.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit}; allowed: 1 or more, or None")
    folder = Path(folder)
    path = folder / "test.jsonl"
    if not path.is_file():
        raise ValueError(f"folder={folder}: looked for {path.name} and data/*.mp4, found {contents(folder)}")
    samples: list[Sample] = []
    seen: set[str] = set()
    for number, line in numbered_lines(path):
        try:
            sample = _sample(json.loads(line), folder)
            if sample.question_id in seen:
                raise ValueError(f"question_id={sample.question_id!r} appears twice")
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        seen.add(sample.question_id)
        samples.append(sample)
    if not samples:
        raise ValueError(f"{path}: no rows")
    return samples[:limit]


def _sample(row: Any, folder: Path) -> Sample:
    if not isinstance(row, dict):
        raise ValueError(f"{row!r}; allowed: an object with the columns of Video-MME")
    for name in _TEXT_COLUMNS:
        if not isinstance(row.get(name), str) or not row[name]:
            raise ValueError(f"{name}={row.get(name)!r}; allowed: a text that is not empty")
    options = row.get("options")
    if not isinstance(options, list) or len(options) != 4 or not all(isinstance(o, str) for o in options):
        raise ValueError(f"options={options!r}; allowed: a list of four texts")
    texts = option_texts(options)
    if texts == tuple(options):
        raise ValueError(f'options={options!r}; allowed: texts that start with "A. " to "D. "')
    if row["answer"] not in list(LETTERS[:4]):
        raise ValueError(f"answer={row['answer']!r}; allowed: A, B, C, D")
    return Sample(
        question_id=row["question_id"],
        video=str(folder / "data" / f"{row['videoID']}.mp4"),
        question=row["question"],
        options=texts,
        answer=row["answer"],
        meta={
            "category": row["sub_category"],
            "duration": row["duration"],
            "video_id": row["video_id"],
        },
    )
