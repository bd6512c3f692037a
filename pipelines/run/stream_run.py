"""Runs questions that say when they are asked, each against what a stream's memory holds at that second: every video is
played once, from its beginning, as fast as it is encoded. Standing ones are asked every second until they fire."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import attrgetter

import torch

from pipelines.run.lost_device import raise_if_lost
from pipelines.run.model_stage import ModelStage
from pipelines.run.rows import answered_row, failed_rows, shares
from pipelines.run.stages import ClipItem, Failure
from pipelines.run.status import ActorStatus
from pipelines.run.stream_standing import EVERY, POLL_TOKENS, Waiting, polls, split
from videoprune.engine import Engine
from videoprune.eval.benchmarks.stream_times import ANSWERED_AT
from videoprune.result_row import ResultRow
from videoprune.stream import StreamAnswer, StreamConfig, StreamSession
from videoprune.types import UNUSABLE, Answer, Outcome, Sample, VideoFrames
from videoprune.video import VideoError
from videoprune.video.live import FetchedFrames, LiveFrame, open_live

AT_ONCE = 16  # frames that are encoded in one call
POLLS = "polls"  # key of a standing question's `meta`: how often it was asked
_WAIT = 60.0  # seconds for a frame of a file


@dataclass(frozen=True)
class StreamOptions:
    """fps: frames a second that are looked at. memory: how much of them is kept."""

    fps: float = 2.0
    memory: StreamConfig = field(default_factory=StreamConfig)


def run(
    items: Iterable[ClipItem], model: ModelStage, options: StreamOptions, *, status: ActorStatus | None = None
) -> Iterator[list[ResultRow]]:
    """Rows of each item. Neighbours about one video share its stream, whenever they are asked. status: kept up to
    date."""
    status = status or ActorStatus()
    model.setup()
    status.models = 1
    status.begin()
    try:
        for _, group in groupby(items, attrgetter("video")):
            samples = [s for item in group for s in item.samples]
            yield from _Playing(model.engine, options, model.max_new_tokens, status).rows(samples)
    finally:
        model.close()


class _Playing:
    """One video."""

    def __init__(
        self, engine: Engine, options: StreamOptions, max_new_tokens: int, status: ActorStatus
    ) -> None:
        self.engine, self.options, self.max_new_tokens = engine, options, max_new_tokens
        self.status = status
        self.session = StreamSession(engine, options.memory)
        self.buffer: list[LiveFrame] = []
        self.seconds = {"decode": 0.0, "encode": 0.0}  # that no row has borne yet
        self.asked_then: Counter[float | None] = Counter()  # questions without a row by their second
        self.waiting: list[Waiting] = []

    def rows(self, samples: Sequence[Sample]) -> Iterator[list[ResultRow]]:
        """A row of each question, in the order in which they are answered."""
        left, self.waiting = split(sorted(samples, key=lambda s: math.inf if s.until is None else s.until))
        if unusable := samples[0].meta.get(UNUSABLE, ""):
            yield self._failed_rest(left, Failure.of_video(unusable))
            return
        self.asked_then = Counter(s.until for s in left)
        try:
            source = open_live(
                samples[0].video, fps=self.options.fps, size=self.engine.frame_size, paced=False
            )
        except (VideoError, ValueError) as error:
            yield self._failed_rest(left, Failure.of(error))
            return
        seconds = None
        try:
            for frame in self._frames(source):
                seconds = frame.seconds
                yield from self._before(seconds, left)
                if not left and not self.waiting:
                    return
                self.buffer.append(frame)
                if len(self.buffer) == AT_ONCE:
                    self._encode()
            reason = source.stats().reason
        except Exception as error:  # frames that cannot be encoded: this video's failure alone
            raise_if_lost(error)
            yield self._failed_rest(left, Failure.of(error))
            return
        finally:
            source.close()
        if seconds is None:
            yield self._failed_rest(left, Failure.of_video(f"empty: {reason or 'no frame'}"))
            return
        ended = Outcome("truncated", reason) if reason else Outcome("complete")
        for sample in left:
            yield [self._row(sample, ended)]
        yield from self._before(seconds + EVERY, [])  # the last frame is seen for as long
        for one in self.waiting:
            yield [self._standing_row(one, "", ended)]

    def _before(self, seconds: float, left: list[Sample]) -> Iterator[list[ResultRow]]:
        """Rows of what is asked before the frame of that second is seen."""
        for at, one in polls(self.waiting, seconds):
            if (row := self._poll(one, at)) is not None:
                self.waiting.remove(one)
                yield [row]
        for one in [w for w in self.waiting if w.over]:
            self.waiting.remove(one)
            yield [self._standing_row(one, "", Outcome("complete"))]
        while left and left[0].until is not None and seconds >= left[0].until:
            yield [self._row(left.pop(0))]

    def _failed_rest(self, left: Sequence[Sample], failure: Failure) -> list[ResultRow]:
        return _failed([*left, *(w.sample for w in self.waiting)], failure)

    def _frames(self, source: FetchedFrames) -> Iterator[LiveFrame]:
        while True:
            began = time.perf_counter()
            frame = source.next(_WAIT)
            self.seconds["decode"] += time.perf_counter() - began
            if frame is None:
                return
            yield frame

    def _encode(self) -> None:
        frames, self.buffer = self.buffer, []
        if not frames:
            return
        with self._working():
            began = time.perf_counter()
            self.session.add_many([(f.pixels, f.seconds) for f in frames])
            self.seconds["encode"] += time.perf_counter() - began

    @contextmanager
    def _working(self) -> Iterator[None]:
        """The model does, for the status."""
        began = self.status.clock()
        yield
        self.status.model_seconds += self.status.clock() - began

    def _row(self, sample: Sample, outcome: Outcome | None = None) -> ResultRow:
        """Questions of one second share what was decoded and encoded since the last, each as much as the others."""
        try:
            answer = self._asked(sample, self.max_new_tokens)
        except Exception as error:
            raise_if_lost(error)
            return _failed([sample], Failure.of(error))[0]
        shared = shares(self.seconds, self.asked_then[sample.until])
        self.asked_then[sample.until] -= 1
        self.seconds = {stage: value - shared[stage] for stage, value in self.seconds.items()}
        return _answered(sample, answer, shared, outcome or Outcome("complete"))

    def _asked(self, sample: Sample, tokens: int, since: float | None = None) -> StreamAnswer:
        self._encode()
        with self._working():
            return self.session.ask(sample, since=since, max_new_tokens=tokens)

    def _poll(self, one: Waiting, at: float) -> ResultRow | None:
        """Its row, if now is the time, or if it fails."""
        try:
            self._encode()
            last = self.session.stats().last
            if last is None or last < one.since:
                return None
            if not one.polled(self._asked(one.poll, POLL_TOKENS, one.since)):
                return None
            if not one.poll.options:
                one.take(self._asked(one.sample, self.max_new_tokens, one.since))
        except Exception as error:
            raise_if_lost(error)
            return _failed([one.sample], Failure.of(error))[0]
        return self._standing_row(one, f"{at:g}", Outcome("complete"))

    def _standing_row(self, one: Waiting, answered_at: str, outcome: Outcome) -> ResultRow:
        """answered_at: "" where it never fired. It bears what was spent since the last row, and all of its polls."""
        if one.heard is None:
            never = f"unasked: the video ends before {one.first:g} s, when it is asked first"
            return _failed([one.sample], Failure.of_video(never))[0]
        answer = one.heard if answered_at else replace(one.heard, text="", choice="")
        shared, self.seconds = self.seconds, dict.fromkeys(self.seconds, 0.0)
        row = _answered(one.sample, answer, shared, outcome)
        row["seconds"] |= shares(one.seconds, 1)
        row["meta"] |= {ANSWERED_AT: answered_at, POLLS: str(one.polls)}
        return row


def _answered(sample: Sample, answer: StreamAnswer, shared: dict[str, float], outcome: Outcome) -> ResultRow:
    """cited: spans in seconds, as 12.5-14.0; first_token: seconds from asking."""
    read = VideoFrames(torch.empty(0, 1, 1, 3, dtype=torch.uint8), (), 0.0, sample.video, "pyav", outcome)
    row = answered_row(sample, Answer(answer.text, answer.choice, answer.trace), read, shared)
    first = answer.seconds["encode"] + answer.seconds["prefill"]
    cited = " ".join(f"{a:.1f}-{b:.1f}" for a, b in answer.cited)
    row["meta"] = row.get("meta", {}) | {"cited": cited, "first_token": f"{first:.4f}"}
    return row


def _failed(samples: Sequence[Sample], failure: Failure) -> list[ResultRow]:
    return [row for s in samples for row in failed_rows(ClipItem(s.video, (s,)), failure)]
