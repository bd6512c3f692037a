"""The model's part of a run: frames in, rows out.

Shapes: T frames, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch

from pipelines.measure.turns import WARM_UP_TOKENS
from pipelines.run.lost_device import raise_if_lost
from pipelines.run.rows import answered_row, failed_rows, shares
from pipelines.run.stages import ClipItem, DecodedClip, Failure, with_subtitles
from videoprune.config import PruneConfig
from videoprune.engine import Engine
from videoprune.neighbours import neighbours
from videoprune.result_row import ResultRow
from videoprune.types import Answer, Encoded, Sample, VideoFrames

BATCH = 16  # questions in one call of the LLM


class ModelStage:
    """Frames -> one row per question, as in results.jsonl but without its `key`.

    batch: questions in one call of the LLM, of one clip or of several that were encoded together, while their visual
    tokens are no more than `tokens`. A question that raises becomes a failed row with the error's traceback, a clip
    that cannot be encoded such rows of all its questions: one strange row neither ends a long run nor takes others
    along. Settings that no clip could pass raise ValueError in `setup`; LostDeviceError: nothing would work any more.
    """

    def __init__(
        self,
        model: str,
        prune: PruneConfig,
        *,
        device: str | None = None,
        batch: int = BATCH,
        tokens: int = 16384,
        max_new_tokens: int = 16,
    ) -> None:
        for name, value in (("batch", batch), ("tokens", tokens)):
            if value < 1:
                raise ValueError(f"{name}={value}; allowed: 1 or more")
        self.model, self.prune, self.device = model, prune, device
        self.batch, self.tokens, self.max_new_tokens = batch, tokens, max_new_tokens
        self._engine: Engine | None = None

    @classmethod
    def around(cls, engine: Engine, *, batch: int = BATCH, max_new_tokens: int = 16) -> ModelStage:
        """A stage on an engine that is loaded already."""
        stage = cls("", engine.prune, batch=batch, max_new_tokens=max_new_tokens)
        stage._engine = engine
        return stage

    def in_actor(self, gpus: float) -> ModelStage:
        """As it is for a Ray actor with so many GPUs, or part of one."""
        return self

    def setup(self) -> None:
        if self._engine is None:
            self._engine = Engine(self.model, self.prune, device=self.device)
        self._warm_up(self._engine)

    @property
    def engine(self) -> Engine:
        assert self._engine is not None, "setup() comes first"
        return self._engine

    def groups(self, items: Iterable[ClipItem]) -> Iterator[list[ClipItem]]:
        """Items that go through a run together: neighbours with no more than `batch` questions, or one with more."""
        return neighbours(
            items, lambda group, item: sum(len(i.samples) for i in (*group, item)) <= self.batch
        )

    def process(self, decoded: DecodedClip) -> list[ResultRow]:
        return self.process_all([decoded])[0]

    def process_all(self, clips: Sequence[DecodedClip]) -> list[list[ResultRow]]:
        """The rows of each clip. Where a group raises, its clips are asked one by one."""
        ready = [(clip, clip.frames) for clip in clips if not isinstance(clip.frames, Failure)]
        try:
            rows = self._rows(ready) if ready else []
        except Exception as error:
            raise_if_lost(error)
            alone = len(ready) == 1
            rows = [_failed(clip, Failure.of(error)) if alone else self.process(clip) for clip, _ in ready]
        left = iter(rows)
        return [_failed(c, c.frames) if isinstance(c.frames, Failure) else next(left) for c in clips]

    def close(self) -> None:
        self._engine = None

    def _rows(self, clips: Sequence[tuple[DecodedClip, VideoFrames]]) -> list[list[ResultRow]]:
        """Of clips with their frames."""
        items = [with_subtitles(clip) for clip, _ in clips]
        assert self._engine is not None, "setup() comes first"
        encoded = self._engine.encode([frames for _, frames in clips])
        shared = [
            shares({"decode": clip.seconds} | one.trace.seconds, len(item.samples))
            for (clip, _), one, item in zip(clips, encoded, items, strict=True)
        ]
        rows: list[list[ResultRow]] = [[] for _ in clips]
        for part in self._calls(items, encoded):
            answers = self._answers([(encoded[i], sample) for i, sample in part])
            for (i, sample), answer in zip(part, answers, strict=True):
                if isinstance(answer, Failure):
                    rows[i] += failed_rows(ClipItem(sample.video, (sample,)), answer, shared[i])
                else:
                    rows[i].append(answered_row(sample, answer, clips[i][1], shared[i]))
        return rows

    def _answers(self, part: Sequence[tuple[Encoded, Sample]]) -> list[Answer | Failure]:
        """Of one call of the LLM. Where it raises, each question is asked alone."""
        assert self._engine is not None
        asked, samples = zip(*part, strict=True)
        try:
            return list(self._engine.answer(asked, samples, max_new_tokens=self.max_new_tokens))
        except Exception as error:
            raise_if_lost(error)
            if len(part) == 1:
                return [Failure.of(error)]
        return [answer for one in part for answer in self._answers([one])]

    def _calls(
        self, items: Sequence[ClipItem], encoded: Sequence[Encoded]
    ) -> Iterator[list[tuple[int, Sample]]]:
        """Questions of one call of the LLM: the number of the clip, and the question."""

        def fits(part: list[tuple[int, Sample]], one: tuple[int, Sample]) -> bool:
            tokens = sum(encoded[i].trace.fused for i, _ in (*part, one))
            return len(part) < self.batch and tokens <= self.tokens

        return neighbours(((i, sample) for i, item in enumerate(items) for sample in item.samples), fits)

    def _warm_up(self, engine: Engine) -> None:
        """A grey clip and as many questions as later, at once: finds settings that cannot work, and keeps first-call
        costs out of the times."""
        height, width = engine.frame_size or (224, 224)
        grey = torch.full((engine.num_frames, height, width, 3), 128, dtype=torch.uint8)
        frames = VideoFrames(grey, tuple(map(float, range(len(grey)))), float(len(grey)), "", "none")
        asked = [Sample(f"{i}", "", f"Which is number {i}?", ("one", "two")) for i in range(self.batch)]
        encoded = engine.encode([frames])
        call = next(self._calls([ClipItem("", tuple(asked))], encoded))
        engine.answer(encoded, [sample for _, sample in call], max_new_tokens=WARM_UP_TOKENS)


def _failed(clip: DecodedClip, failure: Failure) -> list[ResultRow]:
    return failed_rows(clip.item, failure, {"decode": clip.seconds})
