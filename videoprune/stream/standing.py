"""Standing questions, such as "tell me when the circle turns red": when each is asked, and what ends it. No model."""

from __future__ import annotations

import itertools
import math
import threading
from dataclasses import dataclass

from videoprune.stream.session import StreamAnswer
from videoprune.types import Sample

YES_OR_NO = ("yes", "no")
_FIRED_KEPT = 32  # of those that are done, the newest
# Words that may stand before what is to happen, and are no part of the question whether it has.
_ASKING = ("please tell me when ", "tell me when ", "tell me if ", "let me know when ", "notify me when ")


@dataclass(frozen=True)
class Standing:
    """A question that is asked again whenever the stream shows something new, until it fires.

    options, fires: the answers to choose from, and the one that it waits for; none: yes, in words of its own.
    since: only about what was shown at that second of the stream or later; None: about all.
    """

    number: int
    text: str
    options: tuple[str, ...] = ()
    fires: str = ""
    since: float | None = None

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ValueError("text=''; allowed: what to wait for, such as: tell me when the circle turns red")
        if self.options and (len(self.options) < 2 or len(set(self.options)) < len(self.options)):
            raise ValueError(f"options={list(self.options)}; allowed: none, or two and more that differ")
        if self.options and self.fires not in self.options:
            raise ValueError(f"fires={self.fires!r}; allowed: one of {', '.join(self.options)}")
        if self.fires and not self.options:
            raise ValueError(f"fires={self.fires!r} without options; allowed: options that it is one of")

    def sample(self) -> Sample:
        """The question for the model."""
        if self.options:
            return Sample(str(self.number), "", self.text, self.options)
        return Sample(str(self.number), "", f"Is this so: {_event(self.text)}", YES_OR_NO)

    def says(self, answer: StreamAnswer) -> bool:
        """Whether the answer is the one that it waits for."""
        options, fires = (self.options, self.fires) if self.options else (YES_OR_NO, YES_OR_NO[0])
        if answer.choice:
            return options[ord(answer.choice) - ord("A")] == fires
        return answer.text.strip().strip(".!").lower() == fires.lower()


@dataclass(frozen=True)
class Fired:
    """What a standing question waited for, and the second of the stream at which it was seen."""

    standing: Standing
    answer: StreamAnswer

    @property
    def seconds(self) -> float:
        return self.answer.asked_at


class StandingQuestions:
    """Those of one stream. Thread-safe. version: changes with what `waiting` and `fired` tell.

    most: that may wait at a time.
    """

    def __init__(self, most: int = 8) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Standing] = {}
        self._due: list[int] = []
        self._fired: list[Fired] = []
        self.version = 0

    def set(
        self, text: str, options: tuple[str, ...] = (), fires: str = "", *, last: float | None
    ) -> Standing:
        """A new one. last: second of the newest frame, which it is not about. Raises ValueError for mistakes."""
        since = None if last is None else math.nextafter(last, math.inf)
        with self._lock:
            if len(self._waiting) >= self._most:
                raise ValueError(
                    f"standing: {len(self._waiting)} wait; allowed: {self._most} at a time, so drop one first"
                )
            standing = Standing(next(self._numbers), text, options, fires, since)
            self._waiting[standing.number] = standing
            self.version += 1
        return standing

    def drop(self, number: int) -> bool:
        """It waits no longer. -> whether it did."""
        with self._lock:
            self.version += 1
            self._fired = [f for f in self._fired if f.standing.number != number]
            return self._waiting.pop(number, None) is not None

    def shown(self) -> bool:
        """The stream shows something new. -> whether anything is due."""
        with self._lock:
            left = [number for number in self._due if number in self._waiting]  # others were dropped
            self._due = left + [number for number in self._waiting if number not in left]
            return bool(self._due)

    def due(self) -> Standing | None:
        """One to ask now, the longest due first; it is due again once something new is shown."""
        with self._lock:
            while self._due:
                standing = self._waiting.get(self._due.pop(0))
                if standing is not None:
                    return standing
        return None

    def answered(self, standing: Standing, answer: StreamAnswer) -> Fired | None:
        """What the stream said to one that was due. It fires once, unless it was dropped meanwhile."""
        with self._lock:
            if standing.number not in self._waiting or not standing.says(answer):
                return None
            del self._waiting[standing.number]
            fired = Fired(standing, answer)
            self._fired = [*self._fired, fired][-_FIRED_KEPT:]
            self.version += 1
        return fired

    def waiting(self) -> tuple[Standing, ...]:
        with self._lock:
            return tuple(self._waiting.values())

    def fired(self) -> tuple[Fired, ...]:
        """The newest of those that are done, in the order in which they fired."""
        with self._lock:
            return tuple(self._fired)


def _event(text: str) -> str:
    """What is to happen, without the words that ask to be told."""
    text = text.strip()
    for words in _ASKING:
        if text.lower().startswith(words):
            return text[len(words) :].rstrip(".!?") + "?"
    return text
