"""A run that is asked to end: nothing new begins, what is under way is finished and written, within a time.

Ctrl-C sends SIGINT, a cluster's scheduler sends SIGTERM and some 30 s later SIGKILL.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

T = TypeVar("T")
GRACE_SECONDS = 25.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Overdue(BaseException):
    """Raised wherever the main thread is: what was under way is given up. Rows that were written stay."""


class StoppedError(Exception):
    """A run ended before its end. signal: that asked for it. overdue: something under way was given up, and may still
    hold a thread."""

    def __init__(self, done: int, total: int, stop: Stop) -> None:
        super().__init__(f"{done} of {total} questions are answered and written")
        assert stop.signal is not None
        self.signal, self.overdue = stop.signal, stop.overdue


class Stop:
    """Whether a run was asked to end. signal: the first that asked, None while none did. overdue: it was ended."""

    def __init__(self, seconds: float = GRACE_SECONDS) -> None:
        self.seconds = seconds
        self.signal: int | None = None
        self.overdue = False

    def until(self, items: Iterable[T]) -> Iterator[T]:
        """The items, as long as nobody asked to end."""
        for item in items:
            if self.signal is not None:
                return
            yield item

    @contextmanager
    def listening(self) -> Iterator[Stop]:
        """SIGINT and SIGTERM ask to end while the block runs; the second, or `seconds` after the first, ends what is
        under way. Only the main thread can listen: in others nothing changes. Where the system has no timer, only the
        second signal does."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        alarm = getattr(signal, "SIGALRM", None)
        before = {s: signal.signal(s, self._asked) for s in _SIGNALS}
        if alarm is not None:
            before[alarm] = signal.signal(alarm, self._overdue)
        try:
            yield self
        except Overdue:
            self.overdue = True
        finally:
            if alarm is not None:
                signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise Overdue
        self.signal = number
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, self.seconds)
        print(
            f"\nvideoprune: {signal.Signals(number).name}: finishing what is under way, at most {self.seconds:g} s; "
            "once more ends at once",
            file=sys.stderr,
            flush=True,
        )

    def _overdue(self, number: int, frame: FrameType | None) -> None:
        raise Overdue
