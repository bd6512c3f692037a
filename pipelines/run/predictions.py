"""Predictions that are there already, ours or anyone's, as rows that can be scored."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipelines.run.results import Row, read_rows
from pipelines.run.rows import failed_rows
from pipelines.run.stages import Failure, group_by_video
from videoprune.eval.benchmarks.base import Benchmark
from videoprune.eval.benchmarks.folder import read_json, read_json_lines
from videoprune.eval.benchmarks.stream_times import NO_PREDICTION, answer_time
from videoprune.types import UNUSABLE, Sample


def prediction_rows(
    found: Benchmark, paths: Sequence[Path], samples: Sequence[Sample] | None
) -> tuple[list[Row], list[str]]:
    """Rows to score, and notes: from results.jsonl, a run's folder with or without shards, or an official form.

    samples: the benchmark's questions; with them every question has a row, without them the files must carry
    the truth. Raises ValueError where they do not, for a question with two predictions, or if no prediction is
    of these questions.
    """
    rows: dict[str, Row] = {}
    for path in paths:
        for row in _read(found, path):
            name = row["question_id"]
            if name in rows:
                raise ValueError(f"{path}: question {name} has two predictions; allowed: one")
            rows[name] = row
    if samples is None:
        bare = next((r for r in rows.values() if not {"answer", "category", "question"} <= r.keys()), None)
        if bare is not None:
            raise ValueError(
                f"predictions: question {bare['question_id']} comes without its answer; name the folder of "
                f"{found.title} with --data"
            )
        return [{"video_id": "", "outcome": "complete", "reason": "", **r} for r in rows.values()], []
    return _joined(rows, samples, paths)


def _read(found: Benchmark, path: Path) -> list[Row]:
    if path.is_dir():
        files = sorted(path.glob("shard-*/results.jsonl")) or [path / "results.jsonl"]
        if not files[0].is_file():
            raise ValueError(f"predictions={path}: looked for results.jsonl and shard-*/results.jsonl")
        return [row for file in files for row in read_rows(file).values()]
    if not path.is_file():
        raise ValueError(f"predictions={path}: no such file")
    if path.suffix != ".jsonl":
        return found.predictions(read_json(path))
    if _is_results(path):
        return list(read_rows(path).values())
    return found.predictions(read_json_lines(path))


def _is_results(path: Path) -> bool:
    with path.open("rb") as file:
        first = file.readline()
    try:
        return {"question_id", "outcome", "text"} <= json.loads(first).keys()
    except (ValueError, AttributeError):
        return False


def _joined(
    rows: Mapping[str, Row], samples: Sequence[Sample], paths: Sequence[Path]
) -> tuple[list[Row], list[str]]:
    known = {s.question_id for s in samples}
    strange = [name for name in rows if name not in known]
    if rows and len(strange) == len(rows):
        raise ValueError(
            f"predictions={', '.join(map(str, paths))}: none of the {len(rows)} is of a question of the split; "
            f"first: {strange[0]}"
        )
    joined: list[Row] = []
    other_truth = 0
    for item in group_by_video(samples):
        for sample, failed in zip(
            item.samples, failed_rows(item, Failure(NO_PREDICTION, NO_PREDICTION)), strict=True
        ):
            row, blank = rows.get(sample.question_id), dict(failed)
            if row is None:
                joined.append(blank | {"reason": sample.meta.get(UNUSABLE, NO_PREDICTION)})
                continue
            other_truth += row.get("answer", sample.answer) != sample.answer
            done = {"outcome": "complete", "reason": ""} | row
            joined.append(blank | {k: done[k] for k in ("text", "outcome", "reason")} | _timed(blank, row))
    notes = [f"{len(strange)} predictions are of other questions and do not count"] if strange else []
    if other_truth:
        notes.append(
            f"{other_truth} predictions come with another answer than the split's; the split's counts"
        )
    return joined, notes


def _timed(blank: Row, row: Row) -> Row:
    """When a standing question was answered, which the prediction alone knows."""
    time = answer_time(row)
    return {"meta": {**blank.get("meta", {}), **time}} if time else {}
