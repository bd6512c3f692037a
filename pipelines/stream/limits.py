"""How much the server takes from anyone before it refuses."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Limits:
    """Counts, bytes and seconds, each above 0.

    streams: open at a time. viewers: WebSockets. connections: with these. questions: answered at a time. waiting:
    that wait for their turn, for queue_seconds at most. question_seconds: of one, from its turn on. standing: that
    wait in one stream. body_bytes, body_seconds: of a request. frame_bytes: of a picture that a viewer sends. pixels:
    of one picture. event_bytes: of a viewer's event. media: pictures and videos of a request. fetch_bytes,
    fetch_seconds: of a video_url, redirects in all. decode_seconds: of a video. text: characters of a question.
    answer_tokens: of an answer. bad_tokens: wrong ones from one address in a minute. header_seconds: until a
    connection has said what it wants. send_seconds: until a viewer has taken what it was sent. ping_seconds: until a
    viewer that says nothing is asked, and until it is given up. grace_seconds: for which a stream waits for its
    camera to come back. ended_seconds: for which a stream that ended and has no viewers can be asked. thumbnails: of
    a stream.
    """

    streams: int = 8
    viewers: int = 64
    connections: int = 256
    questions: int = 2
    waiting: int = 32
    queue_seconds: float = 30.0
    question_seconds: float = 120.0
    standing: int = 8
    body_bytes: int = 32 << 20
    body_seconds: float = 30.0
    frame_bytes: int = 4 << 20
    pixels: int = 1 << 24
    event_bytes: int = 64 << 10
    media: int = 32
    fetch_bytes: int = 128 << 20
    fetch_seconds: float = 30.0
    decode_seconds: float = 60.0
    text: int = 16_384
    answer_tokens: int = 1024
    bad_tokens: int = 10
    header_seconds: float = 10.0
    send_seconds: float = 10.0
    ping_seconds: float = 20.0
    grace_seconds: float = 60.0
    ended_seconds: float = 600.0
    thumbnails: int = 256

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{field.name}={value}; allowed: finite numbers above 0")
