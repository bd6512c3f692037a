"""Questions in flight: so many are answered at a time, so many wait, none for ever."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from pipelines.stream.limits import Limits
from pipelines.stream.refused import Refused
from videoprune.stream import Cancelled

_log = logging.getLogger(__name__)
T = TypeVar("T")
# Called with a function that takes the text so far, and one that tells whether to give up.
Work = Callable[[Callable[[str], None], Callable[[], bool]], T]


class Job(Generic[T]):
    """One question while it is answered in a thread."""

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._texts: asyncio.Queue[str | None] = asyncio.Queue()
        self._gone = threading.Event()
        self._until = time.monotonic() + seconds
        self._outcome: tuple[T | None, BaseException | None] = (None, None)
        self._seconds = seconds

    def cancel(self) -> None:
        """Give it up after the token that is being made."""
        self._gone.set()

    async def text(self) -> str | None:
        """The newest text so far once there is more of it; None at the end. Raises what the work raised."""
        text = await self._texts.get()
        while text is not None and not self._texts.empty():
            text = self._texts.get_nowait()
        if text is None and self._outcome[1] is not None:
            raise self._outcome[1]
        return text

    async def result(self) -> T:
        while await self.text() is not None:
            pass
        result = self._outcome[0]
        assert result is not None
        return result

    @property
    def done(self) -> T:
        """After the end."""
        assert self._outcome[0] is not None
        return self._outcome[0]

    def run(self, work: Work[T]) -> str:
        """In the thread. -> the outcome's name."""
        try:
            result = work(self._put, lambda: self._gone.is_set() or time.monotonic() > self._until)
            self._outcome, outcome = (result, None), "answered"
        except Cancelled:
            late = not self._gone.is_set()
            said = f"the answer was not complete after {self._seconds:g} seconds; ask for less at a time"
            error = (
                Refused(504, said, code="timeout") if late else Refused(499, "taken back", code="cancelled")
            )
            self._outcome, outcome = (None, error), "late" if late else "cancelled"
        except Refused as refused:
            self._outcome, outcome = (None, refused), "refused"
        except ValueError as error:
            self._outcome, outcome = (None, Refused(400, str(error), code="invalid_value")), "refused"
        except Exception as error:
            _log.exception("a question failed")
            said = f"the model failed ({type(error).__name__}); the server's log says more"
            self._outcome, outcome = (None, Refused(500, said, code="failed")), "failed"
        self._put(None)
        return outcome

    def _put(self, text: str | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._texts.put_nowait, text)
        except RuntimeError:  # the server has ended
            self._gone.set()


class Desk:
    """counted: called with the outcome of each question."""

    def __init__(self, limits: Limits, counted: Callable[[str], None] = lambda outcome: None) -> None:
        self._limits, self._counted = limits, counted
        self._places = asyncio.Semaphore(limits.questions)
        self._threads = ThreadPoolExecutor(limits.questions, thread_name_prefix="question")
        self._jobs: set[Job] = set()
        self.waiting = 0

    @property
    def answering(self) -> int:
        return len(self._jobs)

    @asynccontextmanager
    async def job(self, work: Work[T]) -> AsyncIterator[Job[T]]:
        """Answer a question; leaving takes it back. Raises Refused where too many wait, or it waited too long."""
        await self._turn()
        job: Job[T] = Job(self._limits.question_seconds)
        self._jobs.add(job)
        future = asyncio.get_running_loop().run_in_executor(self._threads, job.run, work)
        future.add_done_callback(lambda done: self._end(job, done))
        try:
            yield job
        finally:
            job.cancel()

    def close(self) -> None:
        """Take back all that is asked and wait for the threads."""
        for job in tuple(self._jobs):
            job.cancel()
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def _turn(self) -> None:
        if self.waiting >= self._limits.waiting:
            self._counted("refused")
            raise Refused(
                429,
                f"questions: {self.waiting} wait already; allowed: {self._limits.waiting}, so ask again later",
                code="rate_limit_exceeded",
                retry=1,
            )
        self.waiting += 1
        try:
            async with asyncio.timeout(self._limits.queue_seconds):
                await self._places.acquire()
        except asyncio.CancelledError:
            self._counted("cancelled")
            raise
        except TimeoutError:
            self._counted("queue_late")
            raise Refused(
                503,
                f"questions: no turn within {self._limits.queue_seconds:g} seconds; ask again later",
                code="overloaded",
                retry=5,
            ) from None
        finally:
            self.waiting -= 1

    def _end(self, job: Job, done: asyncio.Future[str]) -> None:
        self._jobs.discard(job)
        self._places.release()
        self._counted("cancelled" if done.cancelled() else done.result())
