"""The standing questions of a stream as viewers are told of them."""

from __future__ import annotations

from typing import Any

from pipelines.stream.feed import Feed
from videoprune.stream import Standing


def standing_list(feed: Feed) -> list[dict[str, Any]]:
    """Those that wait, then those that fired, the newest last."""
    waiting = [_asked(s) | {"fired": None} for s in feed.standing.waiting()]
    fired = [
        _asked(f.standing) | {"fired": round(f.seconds, 3), "cited": [list(span) for span in f.answer.cited]}
        for f in feed.standing.fired()
    ]
    return waiting + fired


def _asked(standing: Standing) -> dict[str, Any]:
    return {
        "number": standing.number,
        "text": standing.text,
        "options": list(standing.options),
        "fires": standing.fires or "yes",
        "since": standing.since,
    }
