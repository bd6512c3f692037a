"""One WebSocket: what it may say, and what it is told. The newest counts: who is slow misses some, never falls behind.

From the viewer: JPEG pictures (binary), and JSON: {"type": ...} of `push`, `watch`, `ask`, `cancel`, `stand`, `drop`,
`pause`. To the viewer, JSON: `hello`, `shown`, `state`, `standing`, `text`, `answer`, `failed`, `refused`, `closed`.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from pipelines.stream.chat_answer import cut_safe
from pipelines.stream.chat_request import read_json
from pipelines.stream.feed import Feed
from pipelines.stream.question import ask_stream
from pipelines.stream.refused import Refused
from pipelines.stream.service import Service
from pipelines.stream.standing_events import standing_list
from pipelines.stream.viewer_events import answered, options_field, text_field
from videoprune.video.live import PushedFrames

_STATE_SECONDS = 0.5  # between counters
_ASKS = 4  # of one viewer at a time
_ID = 64  # characters of a question's id


class Viewer:
    """Runs within one event loop; only `_told` is called from other threads."""

    def __init__(self, service: Service, name: str) -> None:
        self._service, self.name = service, name
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._feed: Feed | None = None
        self._leave = lambda: None
        self._key = ""
        self._watching = True
        self._closed = ""
        self._asks: dict[str, asyncio.Task[None]] = {}
        self._texts: dict[str, str] = {}  # of answers that are being made, the newest text
        self._said: list[dict[str, Any]] = []
        self._told_of: tuple[Any, int] = (None, -1)  # frame and version of the standing questions
        self._state_at = 0.0

    async def close(self) -> None:
        """Take back what it asked and leave its stream."""
        for task in self._asks.values():
            task.cancel()
        await asyncio.gather(*self._asks.values(), return_exceptions=True)
        self._leave()
        if self._feed is not None and self._key:
            self._service.streams.left(self._feed, self)

    def join(self) -> None:
        """See the stream, if there is one of its name; else `push` makes it. Raises nothing."""
        try:
            self._see(self._service.streams.get(self.name))
        except Refused:
            self._put({"type": "hello", "stream": None, "model": self._service.model})

    async def picture(self, data: bytes) -> None:
        """The next frame of the stream that this viewer sends."""
        feed = self._feed
        if feed is None or not self._key or not isinstance(feed.source, PushedFrames):
            raise Refused(409, "frame: this viewer sends no stream; allowed: after a push", code="no_push")
        if feed.sender is not self:
            raise Refused(409, "frame: another viewer sends this stream now", code="stream_taken")
        source, seconds = feed.source, feed.now
        try:
            await asyncio.to_thread(source.push_jpeg, data, seconds=seconds)
        except ValueError as error:
            raise Refused(400, f"frame: {error}", code="bad_frame") from None

    async def event(self, text: str) -> None:
        """Raises Refused for what is no event."""
        if len(text) > self._service.limits.event_bytes:
            raise Refused(413, f"event: {len(text)} characters; allowed: {self._service.limits.event_bytes}")
        data = read_json(text.encode("utf-8", "replace"))
        kind = data.get("type")
        does = {
            "push": self._push,
            "watch": self._watch,
            "ask": self._ask,
            "cancel": self._cancel,
            "stand": self._stand,
            "drop": self._drop,
            "pause": self._pause,
        }.get(kind if isinstance(kind, str) else "")
        if does is None:
            raise Refused(
                400,
                f"type={str(kind)[:40]!r}; allowed: push, watch, ask, cancel, stand, drop, pause",
                param="type",
            )
        does(data)

    async def news(self) -> list[dict[str, Any]]:
        """What to send next, once there is something."""
        while True:
            found = self._collect()
            if found:
                return found
            try:
                # Not wait_for, which may lose a cancellation and go on for ever.
                async with asyncio.timeout(_STATE_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                continue
            self._wake.clear()

    def refuse(self, refused: Refused) -> None:
        self._put({"type": "refused", "message": str(refused), "code": refused.code, "param": refused.param})

    def _collect(self) -> list[dict[str, Any]]:
        found, self._said = self._said, []
        texts, self._texts = self._texts, {}
        found = [*({"type": "text", "id": i, "text": t} for i, t in texts.items()), *found]
        feed = self._feed
        if feed is None:
            return found
        if self._service.streams.find(feed.name) is not feed:
            if not self._closed:
                self._closed = "the stream was closed"
                found.append({"type": "closed", "message": self._closed})
            return found
        newest, version = feed.newest, feed.standing.version
        if version != self._told_of[1]:
            found.append({"type": "standing", "list": standing_list(feed)})
        if newest is not None and newest is not self._told_of[0]:
            found.append(newest.as_dict(picture=self._watching))
        self._told_of = (newest, version)
        if time.monotonic() - self._state_at >= _STATE_SECONDS:
            self._state_at = time.monotonic()
            found.append({"type": "state", **feed.state(), "now": round(feed.now, 3)})
        return found

    def _see(self, feed: Feed) -> None:
        self._leave()
        self._feed, self._closed, self._told_of = feed, "", (None, -1)
        self._leave = feed.listen(self._told)
        self._put(
            {
                "type": "hello",
                "stream": feed.state(),
                "model": self._service.model,
                "now": round(feed.now, 3),
                "sends": feed.sender is self,
            }
        )

    def _push(self, data: dict[str, Any]) -> None:
        """Send the frames of a stream. key: the viewer's secret, with which it may come back."""
        key = text_field(data, "key", 128)
        if len(key) < 16 or not key.isascii():
            raise Refused(
                400,
                "key: too short or not ASCII; allowed: 16 characters or more that nobody guesses",
                param="key",
            )
        feed = self._service.streams.push(self.name, key, self)
        self._key, self._watching = key, False
        self._see(feed)

    def _watch(self, data: dict[str, Any]) -> None:
        """Whether frames come with their picture."""
        self._watching = data.get("pictures") is True

    def _ask(self, data: dict[str, Any]) -> None:
        identity, feed = text_field(data, "id", _ID), self._stream()
        text = text_field(data, "text", self._service.limits.text)
        options = options_field(data)
        if identity in self._asks:
            raise Refused(400, f"id={identity!r} is being answered; allowed: another one", param="id")
        if len(self._asks) >= _ASKS:
            raise Refused(
                429, f"ask: {_ASKS} are being answered; allowed: once one is", code="rate_limit_exceeded"
            )
        self._asks[identity] = asyncio.create_task(self._answer(identity, feed, text, options))

    async def _answer(self, identity: str, feed: Feed, text: str, options: tuple[str, ...]) -> None:
        took = self._service.metrics.took
        work = ask_stream(feed, text, tokens=64, options=options, took=took)
        try:
            async with self._service.desk.job(work) as job:
                while (so_far := await job.text()) is not None:
                    self._texts[identity] = cut_safe(so_far).strip()
                    self._wake.set()
            self._put(answered(identity, job.done, options))
        except asyncio.CancelledError:
            self._put({"type": "failed", "id": identity, "message": "taken back", "code": "cancelled"})
        except Refused as refused:
            self._put({"type": "failed", "id": identity, "message": str(refused), "code": refused.code})
        finally:
            self._asks.pop(identity, None)

    def _cancel(self, data: dict[str, Any]) -> None:
        task = self._asks.get(text_field(data, "id", _ID))
        if task is not None:
            task.cancel()

    def _stand(self, data: dict[str, Any]) -> None:
        feed, text = self._stream(), text_field(data, "text", 1024)
        fires = data.get("fires", "")
        try:
            if not isinstance(fires, str):
                raise ValueError("fires: no text; allowed: one of the options")
            feed.standing.set(text, options_field(data), fires, last=feed.session.stats().last)
        except ValueError as error:
            raise Refused(400, str(error), code="invalid_value") from None
        feed.tell()

    def _drop(self, data: dict[str, Any]) -> None:
        number, feed = data.get("number"), self._stream()
        if not isinstance(number, int):
            raise Refused(
                400, "number: no whole number; allowed: that of a standing question", param="number"
            )
        feed.standing.drop(number)
        feed.tell()

    def _pause(self, data: dict[str, Any]) -> None:
        self._stream().pause(data.get("on") is True)

    def _stream(self) -> Feed:
        if self._feed is None:
            raise Refused(
                404, f"stream {self.name}: no such stream; allowed: after a push", code="stream_not_found"
            )
        return self._feed

    def _put(self, message: dict[str, Any]) -> None:
        self._said.append(message)
        self._wake.set()

    def _told(self) -> None:
        """From any thread."""
        try:
            self._loop.call_soon_threadsafe(self._wake.set)
        except RuntimeError:
            return  # the server has ended
