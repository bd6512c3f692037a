"""A stream that is watched, and asked at any time about what it has shown so far."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from videoprune.engine import Engine
from videoprune.stream.asking import Asking
from videoprune.stream.citing import cited_spans
from videoprune.stream.memory import Held, StreamConfig, StreamMemory
from videoprune.stream.still import is_still
from videoprune.types import Encoded, Sample, TimeStep, Trace, VideoFrames


@dataclass(frozen=True)
class StreamAnswer:
    """What the model said of the stream up to `asked_at` (seconds of the stream).

    cited: first and last second of the spans that the answer rests on, the strongest first: the time steps whose tokens
    the question kept to the LLM's last layer. seconds: queue, encode, prefill (to the first token) and generate.
    tokens: dense (of all that is remembered, unpruned), resident, llm (on average over its layers).
    """

    text: str
    choice: str
    asked_at: float
    cited: tuple[tuple[float, float], ...]
    seconds: dict[str, float]
    tokens: dict[str, int]
    trace: Trace


@dataclass(frozen=True)
class StreamStats:
    """frames: given; still: of them merged unseen into the one before; steps: encoded. tokens, bytes: held now, those
    of the LLM's shared beginning apart (`prefix_bytes`). arrived: tokens since the start. first, last: seconds."""

    frames: int
    still: int
    steps: int
    arrived: int
    tokens: int
    bytes: int
    prefix_bytes: int
    held_steps: int
    first: float | None
    last: float | None
    encode_seconds: float


@dataclass(frozen=True)
class _View:
    """What a question sees: fixed, whatever comes later."""

    key: tuple[int, float | None, float | None]
    held: tuple[Held, ...]
    pending: tuple[tuple[Tensor, float], ...]
    pending_last: float
    asked_at: float


class StreamSession:
    """One stream before one engine. Thread-safe: frames come in one thread, questions in any number.

    Each frame is encoded once, as soon as the encoder has a time step of them, with the engine's early pruning. Frames
    that show what the last one showed are not encoded. Questions that see the same share what the LLM makes of it.
    """

    def __init__(self, engine: Engine, config: StreamConfig | None = None) -> None:
        self.engine = engine
        self.config = config or StreamConfig()
        self._memory = StreamMemory(self.config)
        self._pending: list[tuple[Tensor, float]] = []  # frames of a time step that is not whole
        self._pending_last = 0.0
        self._shown: Tensor | None = None  # what the last frame that counted showed
        self._like: Encoded | None = None
        self._frames = self._still = self._steps = 0
        self._encode_seconds = 0.0
        self._last: float | None = None
        self._adding, self._state = threading.Lock(), threading.Lock()
        self._asking = threading.Lock()  # one prefill at a time; the others would only wait for the device
        self._begun: tuple[tuple[int, float | None, float | None], Encoded] | None = None

    def add(self, pixels: Tensor, seconds: float) -> bool:
        """One frame, uint8 (H, W, 3), upright RGB, of the stream's second `seconds`. -> whether it shows anything new.

        Raises ValueError for other pixels, or a time that is not later than the last.
        """
        if pixels.dtype != torch.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(f"pixels: {pixels.dtype} {tuple(pixels.shape)}; allowed: uint8 (H, W, 3)")
        with self._adding:
            if self._last is not None and seconds <= self._last:
                raise ValueError(f"seconds={seconds}; allowed: later than the frame before, {self._last}")
            pixels = self._sized(pixels)
            if self._shown is not None and is_still(pixels, self._shown, self.config.still):
                with self._state:
                    self._stay(seconds)
                return False
            self._show(pixels, seconds)
            return True

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
            },
            trace=replace(answer.trace, places=None),
        )

    def stats(self) -> StreamStats:
        with self._state:
            held = self._memory.held()
            begun = self._begun
            return StreamStats(
                frames=self._frames,
                still=self._still,
                steps=self._steps,
                arrived=self._memory.arrived,
                tokens=self._memory.num_tokens,
                bytes=self._memory.num_bytes,
                prefix_bytes=0 if begun is None or begun[1].prefix is None else begun[1].prefix.num_bytes,
                held_steps=len(held),
                first=held[0].first if held else None,
                last=self._last,
                encode_seconds=self._encode_seconds,
            )

    def held(self) -> tuple[Held, ...]:
        """The time steps that are remembered, with the tokens left of each."""
        with self._state:
            return self._memory.held()

    def _sized(self, pixels: Tensor) -> Tensor:
        """All frames of a stream have one size: the engine's, or else the first frame's."""
        size = self.engine.frame_size or (None if self._shown is None else tuple(self._shown.shape[:2]))
        if size is None or tuple(pixels.shape[:2]) == size:
            return pixels
        x = pixels.permute(2, 0, 1)[None].float()
        x = F.interpolate(x, size, mode="bilinear", antialias=True)
        return x[0].round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0)

    def _stay(self, seconds: float) -> None:
        self._frames, self._still, self._last = self._frames + 1, self._still + 1, seconds
        if self._pending:
            self._pending_last = seconds
        else:
            self._memory.stay(seconds)

    def _show(self, pixels: Tensor, seconds: float) -> None:
        pending = [*self._pending, (pixels, seconds)]
        step = None
        if len(pending) == self.engine.weights.frames_per_step:
            step, like, spent = self._encoded(pending)
        with self._state:
            if step is not None:
                self._memory.add(step)  # first: it may refuse
                self._like, self._steps = like, self._steps + 1
                self._encode_seconds += spent
                pending = []
            self._pending, self._pending_last, self._shown = pending, seconds, pixels
            self._frames, self._last = self._frames + 1, seconds

    def _encoded(self, frames: Sequence[tuple[Tensor, float]]) -> tuple[TimeStep, Encoded, float]:
        """Frames of one time step -> the step, its clip, and the seconds it took."""
        started = time.perf_counter()
        times = tuple(t for _, t in frames)
        clip = VideoFrames(torch.stack([p for p, _ in frames]), times, times[-1] - times[0], "", "stream")
        (encoded,) = self.engine.encode([clip])
        (step,) = self.engine.weights.steps(encoded, clip)
        return step, encoded, time.perf_counter() - started

    def _view(self, since: float | None) -> _View:
        with self._state:
            if self._last is None:
                raise ValueError("stream: no frame yet; allowed: questions once something was shown")
            held = tuple(h for h in self._memory.held() if since is None or h.last >= since)
            pending = self._pending if since is None or self._pending_last >= since else []
            if not held and not pending:
                raise ValueError(f"since={since}; allowed: up to the last frame's second, {self._last}")
            key = (self._memory.version, self._pending_last if pending else None, since)
            return _View(key, held, tuple(pending), self._pending_last, self._last)

    def _clip(self, view: _View) -> tuple[Encoded, tuple[Held, ...], float]:
        """All that the view remembers as one clip, what it is made of, and the seconds that encoding took."""
        held, spent, like = view.held, 0.0, self._like
        if view.pending:
            step, encoded, spent = self._encoded(view.pending)
            held, like = (*held, Held(step, view.pending[0][1], view.pending_last)), like or encoded
        held = tuple(h for h in held if len(h.step))
        begun = self._begun
        if begun is not None and begun[0] == view.key:
            return begun[1], held, spent
        assert like is not None
        clip = self.engine.weights.of_steps([h.step for h in held], like)
        (clip,) = self.engine.prefill([clip])
        self._begun = (view.key, clip)
        return clip, held, spent
