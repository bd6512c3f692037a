"""Standing questions of a run ("tell me when ..."): a model that does not speak up by itself is asked every second."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from videoprune.eval.benchmarks.stream_times import ASKED_AT, POLL, POLL_OPTIONS, POLL_SINCE, is_standing
from videoprune.prompts import LETTERS
from videoprune.stream import StreamAnswer
from videoprune.types import Sample

EVERY = 1.0  # seconds of the stream between polls
POLL_TOKENS = 16  # an option's letter, or yes or no


class Waiting:
    """One standing question until it is answered.

    poll: what is asked each time, about what was shown since `since`. first, next: when it is asked, seconds of the
    stream. heard: the last answer; polls: how often it was asked; seconds: what the model took for it by stage.
    """

    def __init__(self, sample: Sample) -> None:
        text = sample.meta[POLL]
        options = tuple(sample.meta[POLL_OPTIONS].split("\n")) if POLL_OPTIONS in sample.meta else ()
        self.sample = sample
        self.poll = Sample(sample.question_id, sample.video, text, options, prompt="" if options else text)
        self.since = float(sample.meta[POLL_SINCE])
        self.first = self.next = float(sample.meta[ASKED_AT]) + EVERY
        self.heard: StreamAnswer | None = None
        self.polls = 0
        self.seconds: Counter[str] = Counter()

    @property
    def over(self) -> bool:
        """Nobody waits any more."""
        return self.sample.until is not None and self.next > self.sample.until

    def polled(self, answer: StreamAnswer) -> bool:
        """Whether a poll's answer says that now is the time."""
        self.polls += 1
        self.take(answer)
        if not self.poll.options:
            return "yes" in answer.text.lower()
        return bool(answer.choice) and answer.choice in LETTERS[: len(self.poll.options) - 1]

    def take(self, answer: StreamAnswer) -> None:
        self.heard = answer
        self.seconds.update(answer.trace.seconds)


def split(samples: Sequence[Sample]) -> tuple[list[Sample], list[Waiting]]:
    """Questions that are asked once, and the standing ones."""
    standing = [Waiting(s) for s in samples if is_standing(s)]
    return [s for s in samples if not is_standing(s)], standing


def polls(waiting: Sequence[Waiting], seconds: float) -> Iterator[tuple[float, Waiting]]:
    """Polls until `seconds`, in order; each one's next moves on when it is taken."""
    while found := [w for w in waiting if w.next <= seconds and not w.over]:
        one = min(found, key=lambda w: w.next)
        at, one.next = one.next, one.next + EVERY
        yield at, one
