"""One stream of the server: a source, the session that watches it, its standing questions, and who listens."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

from pipelines.stream.shown import Shown, shown
from pipelines.stream.standing_watch import StandingWatch
from pipelines.stream.thumbnails import Thumbnails
from videoprune.stream import StandingQuestions, StreamSession
from videoprune.video.live import LiveFrame, LiveSource

_log = logging.getLogger(__name__)
_WAIT = 0.25  # seconds for a frame, and then again
_JOIN = 10.0
_RATE_SECONDS = 10.0  # over which frames a second are counted

Kind = Literal["camera", "network", "file", "pushed"]


class Feed:
    """A thread takes the newest frame of the source, whatever was missed, and gives it to the session.

    label: for people, without secrets. lasting: stays when it has ended. Any thread may ask, listen and close.
    """

    def __init__(
        self,
        name: str,
        source: LiveSource,
        session: StreamSession,
        *,
        kind: Kind,
        label: str,
        lasting: bool = False,
        standing: int = 8,
        thumbnails: int = 256,
        question_seconds: float = 120.0,
        asked: Callable[[str], None] = lambda outcome: None,
    ) -> None:
        self.name, self.source, self.session = name, source, session
        self.kind, self.label, self.lasting = kind, label, lasting
        self.standing = StandingQuestions(standing)
        self.thumbnails = Thumbnails(thumbnails)
        self.paused = False
        self.pusher = ""  # key of whoever may send the frames of a pushed stream
        self.sender: object = None  # that does so now
        self.newest: Shown | None = None
        self._skipped = 0
        self._failure = ""
        self._ended_at: float | None = None
        self._idle_since = self._start = time.monotonic()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._listeners: dict[object, Callable[[], None]] = {}
        self._times: deque[float] = deque(maxlen=256)
        self._watch = StandingWatch(session, self.standing, self.tell, question_seconds, asked)
        self._thread = threading.Thread(target=self._run, name=f"feed {name}", daemon=True)

    def start(self) -> None:
        self._watch.start()
        self._thread.start()

    def close(self) -> None:
        """End the source, the threads and the questions that stand. More than once is allowed."""
        self._stop.set()
        self.source.close()
        self._watch.close()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(_JOIN)
        self.tell()

    def listen(self, told: Callable[[], None]) -> Callable[[], None]:
        """Call `told`, from any thread, after each change. -> to end that."""
        key = object()
        with self._lock:
            self._listeners[key] = told

        def leave() -> None:
            with self._lock:
                self._listeners.pop(key, None)
                self._idle_since = time.monotonic()

        return leave

    def tell(self) -> None:
        with self._lock:
            listeners = list(self._listeners.values())
        for told in listeners:
            told()

    @property
    def listeners(self) -> int:
        with self._lock:
            return len(self._listeners)

    @property
    def now(self) -> float:
        """Seconds since it was opened."""
        return time.monotonic() - self._start

    def idle_for(self) -> float:
        """Seconds for which nobody has listened."""
        with self._lock:
            return 0.0 if self._listeners else time.monotonic() - self._idle_since

    def ended_for(self) -> float | None:
        """Seconds since the last frame that will be; None: more may come."""
        return None if self._ended_at is None else time.monotonic() - self._ended_at

    def pause(self, paused: bool) -> None:
        self.paused = paused
        self.tell()

    def state(self) -> dict[str, Any]:
        """What there is to know, as plain numbers and words."""
        source, session = self.source.stats(), self.session.stats()
        state = "failed" if self._failure else source.state
        return {
            "name": self.name,
            "kind": self.kind,
            "label": self.label,
            "state": state,
            "reason": self._failure or source.reason,
            "paused": self.paused,
            "received": source.received,
            "dropped": source.dropped,
            "skipped": self._skipped,
            "broken": source.broken,
            "reconnects": source.reconnects,
            "encoded": session.steps,
            "still": session.still,
            "tokens": session.tokens,
            "max_tokens": self.session.config.max_visual_tokens,
            "bytes": session.bytes + session.prefix_bytes,
            "steps": session.held_steps,
            "arrived": session.arrived,
            "first": session.first,
            "last": session.last,
            "encode_seconds": round(session.encode_seconds, 4),
            "fps": self._rate(),
            "viewers": self.listeners,
        }

    def _rate(self) -> float:
        since = time.monotonic() - _RATE_SECONDS
        count = sum(t >= since for t in tuple(self._times))
        return round(count / min(_RATE_SECONDS, max(1.0, self.now)), 2)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                frame = self.source.next(_WAIT)
                if frame is not None:
                    self._take(frame)
                elif self.source.ended:
                    return
        except ValueError as error:  # what this stream cannot be, such as frames too large for its memory
            self._failure = str(error)
        except Exception as error:
            _log.exception("stream %s failed", self.name)
            self._failure = (
                f"the model failed at a frame ({type(error).__name__}); the server's log says more"
            )
        finally:
            self._ended_at = time.monotonic()
            if self._failure:
                self.source.close()
            self.tell()

    def _take(self, frame: LiveFrame) -> None:
        if self.paused:
            self._skipped += 1
            return
        new = self.session.add(frame.pixels, frame.seconds)
        self._times.append(time.monotonic())
        held = self.session.held()
        step = held[-1].step if held else None
        self.newest = shown(frame.seconds, new, frame.pixels, step, self.session.engine.frame_size)
        if new:
            self.thumbnails.add(frame.seconds, frame.pixels)
            self._watch.shown()
        self.tell()
