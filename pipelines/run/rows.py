"""The rows of results.jsonl, but for their `key`: of questions that were answered, and of those that were not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.run.stages import ClipItem, Failure
from videoprune.result_row import ResultRow, result_row
from videoprune.types import Answer, Sample, VideoFrames


def failed_rows(
    item: ClipItem, failure: Failure, seconds: Mapping[str, float] | None = None
) -> list[ResultRow]:
    """Rows of a clip without an answer."""
    said = {
        "prediction": "",
        "text": "",
        "correct": False,
        "outcome": "failed",
        "kind": failure.kind,
        "reason": failure.reason,
        "traceback": failure.traceback,
        "backend": "",
        "fallback_reason": "",
        "tokens": None,
        "seconds": shares(seconds or {}, len(item.samples)),
    }
    return [result_row(question_fields(s) | said) for s in item.samples]


def answered_row(
    sample: Sample, answer: Answer, frames: VideoFrames, shared: Mapping[str, float]
) -> ResultRow:
    """Of a question with an answer. shared: its share of the clip's seconds."""
    said = {
        "prediction": answer.choice,
        "text": answer.text,
        "correct": bool(answer.choice) and answer.choice == sample.answer,
        "outcome": frames.outcome.kind,
        "reason": frames.outcome.reason,
        "backend": frames.backend,
        "fallback_reason": frames.fallback_reason,
        "tokens": answer.trace.as_dict(),
        "seconds": {**shared, **shares(answer.trace.seconds, 1)},
    }
    return result_row(question_fields(sample) | said)


def question_fields(sample: Sample) -> dict[str, Any]:
    """What a row says of its question. What a benchmark's scores need beyond that is in `meta`."""
    row: dict[str, Any] = {
        "question_id": sample.question_id,
        "video_id": sample.meta.get("video_id", sample.video),
        "category": sample.meta.get("category", ""),
        "duration": sample.meta.get("duration", ""),
        "question": sample.question,
        "answer": sample.answer,
    }
    more = {k: v for k, v in sample.meta.items() if k not in ("video_id", "category", "duration")}
    return row | {"meta": more} if more else row


def shares(seconds: Mapping[str, float], questions: int) -> dict[str, float]:
    """What one question bears of a clip's time, so that the rows of a run add up to the run."""
    return {stage: round(value / questions, 6) for stage, value in seconds.items()}
