"""The thread of one stream that asks its standing questions whenever something new was shown."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from videoprune.stream import Cancelled, Standing, StandingQuestions, StreamSession

_log = logging.getLogger(__name__)
_TOKENS = 16  # an option's letter, or yes or no
_JOIN = 10.0


class StandingWatch:
    """told: called when one fires. asked: called with each outcome, for counting."""

    def __init__(
        self,
        session: StreamSession,
        questions: StandingQuestions,
        told: Callable[[], None],
        question_seconds: float,
        asked: Callable[[str], None],
    ) -> None:
        self._session, self._questions = session, questions
        self._told, self._asked, self._seconds = told, asked, question_seconds
        self._stop, self._news = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="standing questions", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def shown(self) -> None:
        """The stream shows something new."""
        if self._questions.shown():
            self._news.set()

    def close(self) -> None:
        self._stop.set()
        self._news.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._news.wait()
            self._news.clear()
            while not self._stop.is_set() and (standing := self._questions.due()) is not None:
                self._ask(standing)

    def _ask(self, standing: Standing) -> None:
        until = time.monotonic() + self._seconds
        try:
            answer = self._session.ask(
                standing.sample(),
                since=standing.since,
                max_new_tokens=_TOKENS,
                cancelled=lambda: self._stop.is_set() or time.monotonic() > until,
            )
        except Cancelled:
            self._asked("cancelled" if self._stop.is_set() else "late")
        except Exception:  # the next news is another chance
            _log.exception("a standing question failed")
            self._asked("failed")
        else:
            self._asked("answered")
            if self._questions.answered(standing, answer):
                self._told()
