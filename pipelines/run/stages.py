"""The steps of a run as plain classes with `setup`, `process` and `close`. They know nothing of who runs
them.

The unit of work is one video with all its questions: decoded once, encoded once, asked many times. A stage
can be pickled until `setup` is called, so an executor may carry it into another process first.

Shapes: T frames, H x W pixels.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch

from pipelines.measure.turns import WARM_UP_TOKENS
from videoprune.config import PruneConfig
from videoprune.engine import Engine
from videoprune.eval.benchmarks.subtitles import SUBTITLE_RULE, fill_subtitles, read_subtitles
from videoprune.types import UNUSABLE, Answer, ResultRow, Sample, VideoFrames, result_row
from videoprune.video import Policy, Reader, Sampling, VideoError
from videoprune.video.grid import grid_view
from videoprune.video.header import stream_header


@dataclass(frozen=True)
class ClipItem:
    """One video and its questions."""

    video: str
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Failure:
    """Why questions have no answer. kind: a video's reason, or the type of an exception. reason: a sentence.
    traceback: where the exception was raised, "" where there was none."""

    kind: str
    reason: str
    traceback: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        kind = type(error).__name__
        return cls(kind, f"{kind}: {error}", "".join(traceback.format_exception(error)))

    @classmethod
    def of_video(cls, reason: str) -> Failure:
        """reason: as a failed Outcome has it, the kind in front."""
        return cls(reason.partition(":")[0], reason)


@dataclass(frozen=True)
class DecodedClip:
    """A clip's frames, or why there are none. seconds: wall time of decoding.

    header: number of frames and frames per second of the whole stream, where a question's prompt needs them.
    """

    item: ClipItem
    frames: VideoFrames | Failure
    seconds: float
    header: tuple[int, float] | None = None


class DecodeStage:
    """Video -> frames (T, H, W, 3) at `size`, `num_frames` of them, uniform in time, or as `policy` says.

    columns: above 0, the frames come as one image with that many side by side, each at its own size. A video
    that cannot be read, or that its loader marked `unusable`, gives a Failure. deadline_seconds: for one video; see
    `Reader`.
    """

    def __init__(
        self,
        num_frames: int,
        size: tuple[int, int] | None,
        *,
        policy: Policy = "uniform",
        columns: int = 0,
        deadline_seconds: float = 60.0,
        threads: int = 1,
    ) -> None:
        self.num_frames, self.size = num_frames, None if columns else size
        self.policy, self.columns = policy, columns
        self.deadline_seconds, self.threads = deadline_seconds, threads
        self._reader: Reader | None = None

    def setup(self) -> None:
        self._reader = self._reader or Reader(threads=self.threads)

    def process(self, item: ClipItem) -> DecodedClip:
        started = time.perf_counter()
        header = None
        frames: VideoFrames | Failure
        try:
            frames, header = self._decode(item)
        except VideoError as error:
            frames = Failure.of_video(f"{error.reason}: {error}")
        except Exception as error:
            frames = Failure.of(error)
        return DecodedClip(item, frames, time.perf_counter() - started, header)

    def _decode(self, item: ClipItem) -> tuple[VideoFrames | Failure, tuple[int, float] | None]:
        assert self._reader is not None, "setup() comes first"
        if unusable := item.samples[0].meta.get(UNUSABLE, ""):
            return Failure.of_video(unusable), None
        sampling = Sampling(self.policy, self.num_frames)
        frames = self._reader.read(
            item.video, sampling, size=self.size, deadline_seconds=self.deadline_seconds
        )
        subtitled = any(SUBTITLE_RULE in s.meta for s in item.samples)
        header = stream_header(item.video) if subtitled else None
        return grid_view(frames, self.columns) if self.columns else frames, header

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()


class ModelStage:
    """Frames -> one row per question, as in results.jsonl but without its `key`.

    batch: questions in one call of the LLM. A clip that raises becomes failed rows with the error's traceback, so
    that one strange clip does not end a long run; settings that no clip could pass raise ValueError in
    `setup`.
    """

    def __init__(
        self,
        model: str,
        prune: PruneConfig,
        *,
        device: str | None = None,
        batch: int = 8,
        max_new_tokens: int = 16,
    ) -> None:
        if batch < 1:
            raise ValueError(f"batch={batch}; allowed: 1 or more")
        self.model, self.prune, self.device = model, prune, device
        self.batch, self.max_new_tokens = batch, max_new_tokens
        self._engine: Engine | None = None

    @classmethod
    def around(cls, engine: Engine, *, batch: int = 8, max_new_tokens: int = 16) -> ModelStage:
        """A stage on an engine that is loaded already."""
        stage = cls("", engine.prune, batch=batch, max_new_tokens=max_new_tokens)
        stage._engine = engine
        return stage

    def setup(self) -> None:
        if self._engine is None:
            self._engine = Engine(self.model, self.prune, device=self.device)
        self._warm_up(self._engine)

    def process(self, decoded: DecodedClip) -> list[ResultRow]:
        seconds = {"decode": decoded.seconds}
        if isinstance(decoded.frames, Failure):
            return failed_rows(decoded.item, decoded.frames, seconds)
        try:
            return self._rows(with_subtitles(decoded), decoded.frames, seconds)
        except Exception as error:
            return failed_rows(decoded.item, Failure.of(error), seconds)

    def close(self) -> None:
        self._engine = None

    def _rows(self, item: ClipItem, frames: VideoFrames, seconds: dict[str, float]) -> list[ResultRow]:
        assert self._engine is not None, "setup() comes first"
        encoded = self._engine.encode([frames])
        shared = _shares(seconds | encoded[0].trace.seconds, len(item.samples))
        rows = []
        for start in range(0, len(item.samples), self.batch):
            samples = item.samples[start : start + self.batch]
            answers = self._engine.answer(encoded, samples, max_new_tokens=self.max_new_tokens)
            rows += [_row(s, answer, frames, shared) for s, answer in zip(samples, answers, strict=True)]
        return rows

    def _warm_up(self, engine: Engine) -> None:
        """A grey clip and as many questions as later: finds settings that cannot work, and keeps first-call costs
        out of the times."""
        height, width = engine.frame_size or (224, 224)
        grey = torch.full((engine.num_frames, height, width, 3), 128, dtype=torch.uint8)
        frames = VideoFrames(grey, tuple(map(float, range(len(grey)))), float(len(grey)), "", "none")
        asked = [Sample(f"{i}", "", f"Which is number {i}?", ("one", "two")) for i in range(self.batch)]
        engine.answer(engine.encode([frames]), asked, max_new_tokens=WARM_UP_TOKENS)


def with_subtitles(decoded: DecodedClip) -> ClipItem:
    """The item with the subtitles of its frames in those prompts that have a place for them."""
    if decoded.header is None or isinstance(decoded.frames, Failure):
        return decoded.item
    shown = len(decoded.frames)
    read = cache(read_subtitles)  # one file for all questions about the video
    samples = tuple(fill_subtitles(s, shown, *decoded.header, read=read) for s in decoded.item.samples)
    return replace(decoded.item, samples=samples)


def group_by_video(samples: Sequence[Sample]) -> list[ClipItem]:
    """One item per video, videos and questions in the order of their first mention."""
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.video, []).append(sample)
    return [ClipItem(video, tuple(asked)) for video, asked in found.items()]


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
        "seconds": _shares(seconds or {}, len(item.samples)),
    }
    return [result_row(question_fields(s) | said) for s in item.samples]


def _row(sample: Sample, answer: Answer, frames: VideoFrames, shared: Mapping[str, float]) -> ResultRow:
    """shared: the question's share of the clip's seconds."""
    said = {
        "prediction": answer.choice,
        "text": answer.text,
        "correct": bool(answer.choice) and answer.choice == sample.answer,
        "outcome": frames.outcome.kind,
        "reason": frames.outcome.reason,
        "backend": frames.backend,
        "fallback_reason": frames.fallback_reason,
        "tokens": answer.trace.as_dict(),
        "seconds": {**shared, **_shares(answer.trace.seconds, 1)},
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


def _shares(seconds: Mapping[str, float], questions: int) -> dict[str, float]:
    """What one question bears of a clip's time, so that the rows of a run add up to the run."""
    return {stage: round(value / questions, 6) for stage, value in seconds.items()}
