"""A stream that is watched, and asked at any time about what it has shown so far."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import torch
from torch import Tensor

from videoprune.engine import Engine
from videoprune.resizing import resized
from videoprune.stream.answer import StreamAnswer, StreamStats
from videoprune.stream.asking import Asking
from videoprune.stream.citing import cited_spans
from videoprune.stream.memory import Held, StreamConfig, StreamMemory
from videoprune.stream.still import is_still
from videoprune.types import Encoded, Sample, TimeStep, VideoFrames

Frame = tuple[Tensor, float]  # pixels, uint8 (H, W, 3), and the second they are of


@dataclass(frozen=True)
class _Now:
    """Where a stream is. pending: frames of a time step that is not whole. shown: what the last frame that was new
    showed. last: second of the last frame."""

    pending: tuple[Frame, ...] = ()
    shown: Tensor | None = None
    last: float | None = None


@dataclass(frozen=True)
class _Steps:
    """What is to happen to the memory: these frames become a time step, or the last one stays until this second."""

    frames: tuple[Frame, ...]
    stays: float | None = None


@dataclass(frozen=True)
class _View:
    """What a question sees: fixed, whatever comes later."""

    key: tuple[int, float | None, float | None]
    held: tuple[Held, ...]
    pending: tuple[Frame, ...]
    asked_at: float


@dataclass(frozen=True)
class _Begun:
    """What the LLM has made of the time steps that the last question saw. key: of its view."""

    key: tuple[int, float | None, float | None]
    steps: tuple[TimeStep, ...]
    clip: Encoded


class StreamSession:
    """One stream before one engine. Thread-safe: frames come in one thread, questions in any number.

    Each frame is encoded once, as soon as the encoder has a time step of them, with the engine's early pruning. Frames
    that show what the last one showed are not encoded. Questions that see the same share what the LLM makes of it, and
    where only new steps have come, these alone are computed.
    """

    def __init__(self, engine: Engine, config: StreamConfig | None = None) -> None:
        self.engine = engine
        self.config = config or StreamConfig()
        self._memory = StreamMemory(self.config)
        self._now = _Now()
        self._like: Encoded | None = None
        self._frames = self._still = self._steps = 0
        self._encode_seconds = 0.0
        self._adding, self._state = threading.Lock(), threading.Lock()
        self._asking = threading.Lock()  # one prefill at a time; the others would only wait for the device
        self._begun: _Begun | None = None

    def add(self, pixels: Tensor, seconds: float) -> bool:
        """One frame, uint8 (H, W, 3), upright RGB, of the stream's second `seconds`. -> whether it shows anything new.

        Raises ValueError for other pixels, or a time that is not later than the last.
        """
        return self.add_many([(pixels, seconds)])[0]

    def add_many(self, frames: Sequence[Frame]) -> list[bool]:
        """As `add` one by one, but what is new is encoded in one call: for streams that need not keep pace."""
        with self._adding:
            now, news, done = self._now, [], list[_Steps]()
            for pixels, seconds in frames:
                now, new, whole = self._after(now, pixels, seconds)
                news.append(new)
                done += whole
            started = time.perf_counter()
            made = self._encoded([step.frames for step in done if step.frames])
            spent = time.perf_counter() - started
            with self._state:
                for one in done:
                    if one.frames:
                        step, self._like = next(made)
                        self._memory.add(step)
                    if one.stays is not None:
                        self._memory.stay(one.stays)
                self._now = now
                self._frames += len(news)
                self._still += len(news) - sum(news)
                self._steps += sum(1 for one in done if one.frames)
                self._encode_seconds += spent
            return news

    def ask(
        self,
        question: Sample | str,
        *,
        since: float | None = None,
        max_new_tokens: int = 64,
        on_text: Callable[[str], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> StreamAnswer:
        """Ask about what was shown until now. since: only of what was shown at that second or later.

        on_text: called with the text so far after each token. cancelled: asked while waiting and after each token.
        Raises `asking.Cancelled` once it says so, and ValueError where nothing has been shown.
        """
        asking, view = Asking(on_text, cancelled), self._view(since)
        with asking.turn(self._asking):
            clip, held, encode = self._clip(view)
            (answer,) = self.engine.answer(
                [clip], [question], max_new_tokens=max_new_tokens, watch=asking.watch, places=True
            )
        last = self.engine.weights.last_by_step(clip, answer.trace, len(held))
        text = self.engine.text_tokens(clip, question)
        return StreamAnswer(
            text=answer.text,
            choice=answer.choice,
            asked_at=view.asked_at,
            cited=cited_spans([(h.first, h.last) for h in held], last),
            seconds=asking.seconds(encode),
            tokens={
                "dense": answer.trace.dense,
                "resident": sum(len(h.step) for h in held),
                "llm": round(answer.trace.llm_average),
                "text": text,
            },
            trace=replace(answer.trace, places=None),
        )

    def stats(self) -> StreamStats:
        with self._state:
            held = self._memory.held()
            begun = None if self._begun is None else self._begun.clip.prefix
            return StreamStats(
                frames=self._frames,
                still=self._still,
                steps=self._steps,
                arrived=self._memory.arrived,
                tokens=self._memory.num_tokens,
                bytes=self._memory.num_bytes,
                prefix_bytes=0 if begun is None else begun.num_bytes,
                held_steps=len(held),
                first=held[0].first if held else None,
                last=self._now.last,
                encode_seconds=self._encode_seconds,
            )

    def forget_beginning(self) -> None:
        """Let go of what the questions so far share; the next one computes it anew."""
        with self._asking:
            self._begun = None

    def held(self) -> tuple[Held, ...]:
        """The time steps that are remembered, with the tokens left of each."""
        with self._state:
            return self._memory.held()

    def _sized(self, pixels: Tensor, shown: Tensor | None) -> Tensor:
        """All frames of a stream have one size: the engine's, or else the first frame's."""
        size = self.engine.frame_size or (None if shown is None else (shown.shape[0], shown.shape[1]))
        return pixels if size is None else resized(pixels[None], size)[0]

    def _after(self, now: _Now, pixels: Tensor, seconds: float) -> tuple[_Now, bool, list[_Steps]]:
        """Where the stream is one frame later, whether it shows anything new, and what of it is whole."""
        if pixels.dtype != torch.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(f"pixels: {pixels.dtype} {tuple(pixels.shape)}; allowed: uint8 (H, W, 3)")
        if now.last is not None and seconds <= now.last:
            raise ValueError(f"seconds={seconds}; allowed: later than the frame before, {now.last}")
        pixels = self._sized(pixels, now.shown)
        if now.shown is not None and is_still(pixels, now.shown, self.config.still):
            # What waits for another frame is not in the memory yet.
            stays = [] if now.pending else [_Steps((), seconds)]
            return replace(now, last=seconds), False, stays
        pending = (*now.pending, (pixels, seconds))
        if len(pending) < self.engine.weights.frames_per_step:
            return _Now(pending, pixels, seconds), True, []
        return _Now((), pixels, seconds), True, [_Steps(pending)]

    def _encoded(self, steps: Sequence[Sequence[Frame]]) -> Iterator[tuple[TimeStep, Encoded]]:
        """Frames of each time step -> the step, and its clip."""
        clips = []
        for frames in steps:
            times = tuple(t for _, t in frames)
            pixels = torch.stack([p for p, _ in frames])
            clips.append(VideoFrames(pixels, times, times[-1] - times[0], "", "stream"))
        encoded = self.engine.encode(clips) if clips else []
        found = [(self.engine.weights.steps(e, clip)[0], e) for e, clip in zip(encoded, clips, strict=True)]
        return iter(found)

    def _view(self, since: float | None) -> _View:
        with self._state:
            now = self._now
            if now.last is None:
                raise ValueError("stream: no frame yet; allowed: questions once something was shown")
            if since is not None and now.last < since:
                raise ValueError(f"since={since}; allowed: up to the last frame's second, {now.last}")
            held = tuple(h for h in self._memory.held() if since is None or h.last >= since)
            key = (self._memory.version, now.last if now.pending else None, since)
            return _View(key, held, now.pending, now.last)

    def _clip(self, view: _View) -> tuple[Encoded, tuple[Held, ...], float]:
        """All that the view remembers as one clip, what it is made of, and the seconds that encoding took."""
        started, held, like = time.perf_counter(), view.held, self._like
        for step, encoded in self._encoded([view.pending] if view.pending else []):
            held, like = (*held, Held(step, view.pending[0][1], view.asked_at)), encoded
        spent = time.perf_counter() - started
        held = tuple(h for h in held if len(h.step))
        begun, steps = self._begun, tuple(h.step for h in held)
        if begun is not None and begun.key == view.key:
            return begun.clip, held, spent
        assert like is not None
        clip = self.engine.weights.of_steps(steps, like)
        grown_from = None if begun is None else (begun.clip, _same_tokens(begun.steps, steps))
        (clip,) = self.engine.prefill([clip], grown_from=grown_from)
        self._begun = _Begun(view.key, steps, clip)
        return clip, held, spent


def _same_tokens(before: Sequence[TimeStep], now: Sequence[TimeStep]) -> int:
    """Dense tokens of the steps that both begin with."""
    same = takewhile(lambda pair: pair[0] is pair[1], zip(before, now, strict=False))
    return sum(step.dense for step, _ in same)
