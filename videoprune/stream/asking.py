"""One question while it waits and is answered: whose turn it is, what has taken how long, whether it is taken back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

_POLL = 0.05  # seconds between looks whether a waiting question is taken back


class Cancelled(Exception):  # noqa: N818 - it is no error
    """The question was taken back before its answer was complete."""


class Asking:
    """on_text: called with the text so far after each token. cancelled: asked while waiting and after each token."""

    def __init__(
        self, on_text: Callable[[str], None] | None = None, cancelled: Callable[[], bool] | None = None
    ) -> None:
        self.on_text, self.cancelled = on_text, cancelled
        self._began = time.perf_counter()
        self._turn = self._first = self._done = 0.0

    @contextmanager
    def turn(self, lock: threading.Lock) -> Iterator[None]:
        """Hold `lock` within. Raises Cancelled, at the end too, if the question was taken back."""
        while not lock.acquire(timeout=_POLL):
            self._check()
        try:
            self._turn = time.perf_counter()
            self._check()
            yield
            self._done = time.perf_counter()
            self._check()
        finally:
            lock.release()

    def watch(self, texts: Sequence[str]) -> bool:
        """After each token: whether to end."""
        self._first = self._first or time.perf_counter()
        if self.on_text is not None:
            self.on_text(texts[0])
        return self._taken_back()

    def seconds(self, encode: float) -> dict[str, float]:
        """encode: of the turn, the seconds in which frames were encoded."""
        return {
            "queue": self._turn - self._began,
            "encode": encode,
            "prefill": self._first - self._turn - encode,
            "generate": self._done - self._first,
        }

    def _check(self) -> None:
        if self._taken_back():
            raise Cancelled

    def _taken_back(self) -> bool:
        return self.cancelled is not None and self.cancelled()
