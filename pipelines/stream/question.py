"""What a thread does for one question of the chat API or a viewer: ask a stream, or a clip of what was sent."""

from __future__ import annotations

import time
from collections.abc import Callable

from pipelines.stream.chat_answer import Said
from pipelines.stream.desk import Work
from pipelines.stream.feed import Feed
from pipelines.stream.refused import Refused
from videoprune.engine import Engine
from videoprune.stream import Cancelled
from videoprune.stream.citing import cited_spans
from videoprune.types import Sample, VideoFrames


def ask_stream(
    feed: Feed,
    text: str,
    *,
    tokens: int,
    options: tuple[str, ...] = (),
    since: float | None = None,
    took: Callable[[dict[str, float]], None] = lambda seconds: None,
) -> Work[Said]:
    """About what the stream has shown until its turn comes. took: called with the seconds by stage."""
    began = time.perf_counter()
    sample = Sample("ask", "", text, options)

    def work(tell: Callable[[str], None], gone: Callable[[], bool]) -> Said:
        waited, count = time.perf_counter() - began, _Counter(tell)
        if feed.session.stats().last is None:
            raise Refused(
                409, f"stream {feed.name}: nothing was shown yet; ask again once it is live", code="no_frame"
            )
        answer = feed.session.ask(sample, since=since, max_new_tokens=tokens, on_text=count, cancelled=gone)
        seconds = answer.seconds | {"queue": answer.seconds["queue"] + waited}
        took(seconds)
        prompt = answer.tokens["text"] + answer.trace.fused
        return Said(
            answer.text,
            count.made < tokens,
            prompt,
            count.made,
            answer.cited,
            seconds,
            answer.tokens,
            answer.asked_at,
            answer.choice,
        )

    return work


def ask_clip(
    engine: Engine,
    clip: Callable[[], VideoFrames],
    text: str,
    *,
    tokens: int,
    took: Callable[[dict[str, float]], None] = lambda seconds: None,
) -> Work[Said]:
    """About pictures and videos. clip: decodes them."""
    began = time.perf_counter()
    sample = Sample("ask", "", text)

    def work(tell: Callable[[str], None], gone: Callable[[], bool]) -> Said:
        turn, count = time.perf_counter(), _Counter(tell)
        frames = clip()
        decoded = time.perf_counter()
        if gone():
            raise Cancelled
        (encoded,) = engine.encode([frames])
        steps = engine.weights.steps(encoded, frames)
        ready = time.perf_counter()

        def watch(texts: object) -> bool:
            assert isinstance(texts, list | tuple)
            count(texts[0])
            return gone()

        (answer,) = engine.answer([encoded], [sample], max_new_tokens=tokens, watch=watch, places=True)
        end = time.perf_counter()
        if gone():
            raise Cancelled
        first = count.first or end
        seconds = {
            "queue": turn - began,
            "decode": decoded - turn,
            "encode": ready - decoded,
            "prefill": first - ready,
            "generate": end - first,
        }
        took(seconds)
        last = engine.weights.last_by_step(encoded, answer.trace, len(steps))
        spans = [(s.pts_seconds[0], s.pts_seconds[-1]) for s in steps]
        counts = {
            "dense": answer.trace.dense,
            "resident": sum(len(s) for s in steps),
            "llm": round(answer.trace.llm_average),
            "text": engine.text_tokens(encoded, sample),
        }
        prompt = counts["text"] + answer.trace.fused
        return Said(
            answer.text, count.made < tokens, prompt, count.made, cited_spans(spans, last), seconds, counts
        )

    return work


class _Counter:
    """Passes texts on and counts them: one a token."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell, self.made, self.first = tell, 0, 0.0

    def __call__(self, text: str) -> None:
        self.first = self.first or time.perf_counter()
        self.made += 1
        self._tell(text)
