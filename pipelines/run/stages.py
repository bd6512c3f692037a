"""The steps of a run as plain classes with `setup`, `process` and `close`. They know nothing of who runs
them.

The unit of work is one video with all its questions: decoded once, encoded once, asked many times. A stage
can be pickled until `setup` is called, so an executor may carry it into another process first.

Shapes: T frames, H x W pixels.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

from videoprune.config import PruneConfig
from videoprune.engine import Engine, open_engine
from videoprune.eval.benchmarks.subtitles import SUBTITLE_RULE, fill_subtitles
from videoprune.models.loading import model_folder
from videoprune.models.multi_encoder import MultiEncoderConfig, MultiEncoderVLM
from videoprune.stock_engine import StockEngine, stock_config, stock_frames
from videoprune.types import UNUSABLE, Answer, Outcome, Sample, VideoFrames
from videoprune.video import Policy, Reader, Sampling, VideoError
from videoprune.video.grid import grid_view
from videoprune.video.header import stream_header

Row = dict[str, Any]


@dataclass(frozen=True)
class ClipItem:
    """One video and its questions."""

    video: str
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class DecodedClip:
    """A clip's frames, or why there are none. seconds: wall time of decoding.

    header: number of frames and frames per second of the whole stream, where a question's prompt needs them.
    """

    item: ClipItem
    frames: VideoFrames | Outcome
    seconds: float
    header: tuple[int, float] | None = None


class DecodeStage:
    """Video -> frames (T, H, W, 3) at `size`, `num_frames` of them, uniform in time, or as `policy` says.

    columns: above 0, the frames come as one image with that many side by side, each at its own size. A video
    that cannot be read, or that its loader marked `unusable`, gives a failed Outcome. deadline_seconds: for one
    video; see `Reader`.
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
        assert self._reader is not None, "setup() comes first"
        started = time.perf_counter()
        header = None
        if unusable := item.samples[0].meta.get(UNUSABLE, ""):
            return DecodedClip(item, Outcome("failed", unusable), 0.0)
        frames = self._reader.try_read(
            item.video,
            Sampling(self.policy, self.num_frames),
            size=self.size,
            deadline_seconds=self.deadline_seconds,
        )
        if not isinstance(frames, Outcome) and any(SUBTITLE_RULE in s.meta for s in item.samples):
            try:
                header = stream_header(item.video)
            except VideoError as error:
                frames = Outcome("failed", f"{error.reason}: {error}")
        if self.columns and not isinstance(frames, Outcome):
            frames = grid_view(frames, self.columns)
        return DecodedClip(item, frames, time.perf_counter() - started, header)

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()


class ModelStage:
    """Frames -> one row per question, as in results.jsonl but without its `key`.

    batch: questions in one call of the LLM. A clip that raises becomes failed rows with the error's text, so
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
        self._engine: Engine | StockEngine | None = None

    @classmethod
    def around(cls, engine: Engine, *, batch: int = 8, max_new_tokens: int = 16) -> ModelStage:
        """A stage on an engine that is loaded already."""
        stage = cls("", engine.prune, device=engine.device, batch=batch, max_new_tokens=max_new_tokens)
        stage._engine = engine
        return stage

    def setup(self) -> None:
        if self._engine is None:
            self._engine = open_engine(self.model, self.prune, device=self.device)
        self._warm_up(self._engine)

    def process(self, decoded: DecodedClip) -> list[Row]:
        item, frames = decoded.item, decoded.frames
        if isinstance(frames, Outcome):
            return failed_rows(item, frames.reason, {"decode": decoded.seconds})
        try:
            return self._rows(_with_subtitles(decoded), frames, decoded.seconds)
        except Exception as error:
            return failed_rows(item, f"{type(error).__name__}: {error}", {"decode": decoded.seconds})

    def close(self) -> None:
        self._engine = None

    def _rows(self, item: ClipItem, frames: VideoFrames, decode_seconds: float) -> list[Row]:
        assert self._engine is not None, "setup() comes first"
        tokens: Any
        tokens, encoding = self._engine.encode([frames])
        seconds = {"decode": decode_seconds, **encoding}
        rows = []
        for start in range(0, len(item.samples), self.batch):
            samples = item.samples[start : start + self.batch]
            answers = self._engine.answer(tokens, samples, max_new_tokens=self.max_new_tokens)
            rows += [
                _row(sample, answer, frames, _shares(seconds, len(item.samples)) | answer.trace.seconds)
                for sample, answer in zip(samples, answers, strict=True)
            ]
        return rows

    def _warm_up(self, engine: Engine | StockEngine) -> None:
        """One grey clip: finds settings that cannot work, and keeps first-call costs out of the times."""
        height, width = engine.frame_size or (224, 224)
        grey = torch.full((engine.num_frames, height, width, 3), 128, dtype=torch.uint8)
        frames = VideoFrames(grey, tuple(map(float, range(len(grey)))), float(len(grey)), "", "none")
        tokens: Any = engine.encode([frames])[0]
        engine.answer(tokens, [Sample("warm-up", "", "Which?", ("one", "two"))], max_new_tokens=1)


def _with_subtitles(decoded: DecodedClip) -> ClipItem:
    """The item with the subtitles of its frames in those prompts that have a place for them."""
    if decoded.header is None or isinstance(decoded.frames, Outcome):
        return decoded.item
    shown = len(decoded.frames)
    samples = tuple(fill_subtitles(s, shown, *decoded.header) for s in decoded.item.samples)
    return replace(decoded.item, samples=samples)


AnyEngine = TypeVar("AnyEngine", bound=Engine | StockEngine)


def with_prune(engine: AnyEngine, prune: PruneConfig) -> AnyEngine:
    """An engine with other settings on the same loaded model. A stock model has the settings it was last given."""
    other = copy.copy(engine)
    if isinstance(other, StockEngine):
        other.set_prune(prune)
    else:
        other.prune = prune
        other.model.resolve(prune)
    return other


def clip_shape(model: str) -> tuple[int, tuple[int, int] | None]:
    """Frames per clip, and their height and width (None: as they are), that `model` is best given. Reads no weights."""
    stock = stock_config(model)
    if stock is not None:
        return stock_frames(model, stock)
    config = MultiEncoderConfig.from_pretrained(model_folder(model))
    with torch.device("meta"):
        side = max(t.model.config.image_size for t in MultiEncoderVLM(config).towers)
    return config.num_frames, (side, side)


def group_by_video(samples: Sequence[Sample]) -> list[ClipItem]:
    """One item per video, videos and questions in the order of their first mention."""
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.video, []).append(sample)
    return [ClipItem(video, tuple(asked)) for video, asked in found.items()]


def failed_rows(item: ClipItem, reason: str, seconds: dict[str, float] | None = None) -> list[Row]:
    """Rows of a clip without an answer."""
    shares = _shares(seconds or {}, len(item.samples))
    return [_question(s) | _failure(reason) | {"seconds": shares} for s in item.samples]


def _question(sample: Sample) -> Row:
    """What a row says of its question. What a benchmark's scores need beyond that is in `meta`."""
    row: Row = {
        "question_id": sample.question_id,
        "video_id": sample.meta.get("video_id", sample.video),
        "category": sample.meta.get("category", ""),
        "duration": sample.meta.get("duration", ""),
        "question": sample.question,
        "answer": sample.answer,
    }
    more = {k: v for k, v in sample.meta.items() if k not in ("video_id", "category", "duration")}
    return row | {"meta": more} if more else row


def _failure(reason: str) -> Row:
    return {
        "prediction": "",
        "text": "",
        "correct": False,
        "outcome": "failed",
        "reason": reason,
        "backend": "",
        "fallback_reason": "",
        "tokens": None,
    }


def _row(sample: Sample, answer: Answer, frames: VideoFrames, seconds: dict[str, float]) -> Row:
    return _question(sample) | {
        "prediction": answer.choice,
        "text": answer.text,
        "correct": bool(answer.choice) and answer.choice == sample.answer,
        "outcome": frames.outcome.kind,
        "reason": frames.outcome.reason,
        "backend": frames.backend,
        "fallback_reason": frames.fallback_reason,
        "tokens": answer.trace.as_dict(),
        "seconds": {stage: round(value, 6) for stage, value in seconds.items()},
    }


def _shares(seconds: dict[str, float], questions: int) -> dict[str, float]:
    """What one question bears of a clip's time, so that the rows of a run add up to the run."""
    return {stage: round(value / questions, 6) for stage, value in seconds.items()}
