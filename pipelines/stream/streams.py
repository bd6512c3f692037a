"""All streams of the server, by name: opened within limits, closed when nobody comes back."""

from __future__ import annotations

import hmac
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pipelines.stream.feed import Feed, Kind
from pipelines.stream.limits import Limits
from pipelines.stream.looped import LoopedFrames
from pipelines.stream.refused import Refused
from videoprune.engine import Engine
from videoprune.stream import StreamConfig, StreamSession
from videoprune.video.live import LiveSource, PushedFrames, open_live
from videoprune.video.live.address import parse_address
from videoprune.video.live.thinning import Thinning

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_SIDE = 640  # of the frames that viewers see; the model makes them smaller
_NETWORK = ("rtsp", "rtsps", "http", "https")


class Streams:
    """files: folder below which files may be opened by request. network: whether cameras and network streams may be.

    asked: called with the outcome of each standing question. Thread-safe.
    """

    def __init__(
        self,
        engine: Engine,
        config: StreamConfig,
        limits: Limits,
        *,
        fps: float = 2.0,
        files: Path | None = None,
        network: bool = False,
        asked: Callable[[str], None] = lambda outcome: None,
    ) -> None:
        Thinning(fps)  # raises for an impossible rate
        self.engine, self.config, self.limits, self.fps = engine, config, limits, fps
        self.files = None if files is None else files.resolve(strict=True)
        self.network = network
        self._asked = asked
        self._lock = threading.Lock()
        self._feeds: dict[str, Feed] = {}
        self._left: dict[str, float] = {}  # when a pushed stream's camera went away

    def open(self, name: str, url: str, *, trusted: bool = False, loop: bool = False) -> Feed:
        """Start one that is fetched. trusted: the operator named it. loop: a file begins anew when it ends.

        Raises Refused, and ValueError for a mistake.
        """
        scheme = url.partition(":")[0].lower()
        device = url.startswith(("/dev/", "v4l2:"))
        kind: Kind = "camera" if device else "network" if scheme in _NETWORK else "file"
        if not trusted:
            url = self._allowed(url, kind)
        self._check(name)
        address = parse_address(url)
        label = Path(url).name if kind == "file" else address.name

        def source() -> LiveSource:
            return open_live(url, fps=self.fps, max_side=_SIDE)

        opens = (lambda: LoopedFrames(source)) if loop else source
        return self._start(name, kind, opens, label=label, lasting=trusted)

    def push(self, name: str, key: str, sender: object) -> Feed:
        """The stream whose frames `sender` sends from now on: a new one, or the one that was begun with the same key.

        Raises Refused where the key is another, or the name that of another stream.
        """
        with self._lock:
            feed = self._feeds.get(name)
            if feed is not None:
                if feed.kind != "pushed" or not hmac.compare_digest(feed.pusher.encode(), key.encode()):
                    sends = (
                        "another viewer sends its frames" if feed.kind == "pushed" else f"it is a {feed.kind}"
                    )
                    raise Refused(409, f"stream {name}: {sends}; allowed: another name", code="stream_taken")
                feed.sender = sender
                self._left.pop(name, None)
                return feed
        self._check(name)
        limits = self.limits
        return self._start(
            name,
            "pushed",
            lambda: PushedFrames(
                fps=self.fps, max_side=_SIDE, max_bytes=limits.frame_bytes, max_pixels=limits.pixels
            ),
            label="a viewer's camera or file",
            pusher=(key, sender),
        )

    def left(self, feed: Feed, sender: object) -> None:
        """It sends no more; the stream waits for a while for one with its key."""
        with self._lock:
            if feed.sender is sender and self._feeds.get(feed.name) is feed:
                feed.sender = None
                self._left[feed.name] = time.monotonic()

    def get(self, name: str) -> Feed:
        """Raises Refused for a name that there is not."""
        with self._lock:
            feed, names = self._feeds.get(name), list(self._feeds)
        if feed is None:
            there = f"allowed: {', '.join(names)}" if names else "none is open"
            raise Refused(404, f"stream {name[:64]!r}: no such stream; {there}", code="stream_not_found")
        return feed

    def find(self, name: str) -> Feed | None:
        with self._lock:
            return self._feeds.get(name)

    def all(self) -> list[Feed]:
        with self._lock:
            return list(self._feeds.values())

    def close(self, name: str) -> None:
        """Raises Refused for a name that there is not."""
        feed = self.get(name)
        with self._lock:
            self._feeds.pop(name, None)
            self._left.pop(name, None)
        feed.close()

    def close_all(self) -> None:
        for feed in self.all():
            self.close(feed.name)

    def tidy(self) -> None:
        """Close what nobody came back to."""
        now = time.monotonic()
        with self._lock:
            gone = [name for name, at in self._left.items() if now - at > self.limits.grace_seconds]
        for feed in self.all():
            over = feed.ended_for()
            waited = min(over or 0.0, feed.idle_for())
            if feed.name in gone or (not feed.lasting and waited > self.limits.ended_seconds):
                self.close(feed.name)

    def _start(
        self,
        name: str,
        kind: Kind,
        source: Callable[[], LiveSource],
        *,
        label: str,
        lasting: bool = False,
        pusher: tuple[str, object] = ("", None),
    ) -> Feed:
        with self._lock:
            if name in self._feeds:
                raise Refused(
                    409, f"stream {name}: is open already; allowed: another name", code="stream_taken"
                )
            if len(self._feeds) >= self.limits.streams:
                raise Refused(
                    429,
                    f"streams: {len(self._feeds)} are open; allowed: {self.limits.streams}, so close one first",
                    code="too_many_streams",
                )
            opened = source()
            feed = Feed(
                name,
                opened,
                StreamSession(self.engine, self.config),
                kind=kind,
                label=label,
                lasting=lasting,
                standing=self.limits.standing,
                thumbnails=self.limits.thumbnails,
                question_seconds=self.limits.question_seconds,
                asked=self._asked,
            )
            feed.pusher, feed.sender = pusher
            self._feeds[name] = feed
        feed.start()
        return feed

    def _check(self, name: str) -> None:
        if not NAME.fullmatch(name):
            raise Refused(
                400,
                f"name={name[:64]!r}; allowed: 1 to 64 letters, digits, - and _, the first a letter or digit",
                code="bad_name",
                param="name",
            )

    def _allowed(self, url: str, kind: Kind) -> str:
        """The address to open for a request from outside."""
        if kind == "file":
            return str(allowed_file(url, self.files))
        if not self.network:
            raise Refused(
                403,
                "url: cameras and network streams are opened by request only on 127.0.0.1; allowed elsewhere: --source "
                "when the server starts, or --allow-private",
                code="not_allowed",
                param="url",
            )
        return url


def allowed_file(path: str, folder: Path | None) -> Path:
    """A file that may be read by request. Raises Refused, in the same words whether or not it is there."""
    path = path.removeprefix("file://")
    if folder is None:
        raise Refused(
            403, "file: no folder is open; allowed: start with --allow-files DIR", code="not_allowed"
        )
    try:
        found = (folder / path).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
        found = None
    if found is None or not found.is_relative_to(folder) or not found.is_file():
        raise Refused(
            403,
            "file: no such file below the folder of --allow-files; allowed: those in it",
            code="not_allowed",
        )
    return found
