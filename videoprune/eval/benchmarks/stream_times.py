"""Times in a stream as StreamingBench writes them, and answers to standing questions, which have one.

A standing question ("tell me when ...") is asked once, at `ASKED_AT`, and answered whenever what it waits for comes:
at `DUE`, "" for never. Such a Sample's `until` is when nobody waits any more. A row says in `ANSWERED_AT` when the
answer came, "" for not at all. All are keys of `meta`, their values seconds as text.

Models that do not speak up by themselves are asked every second: `POLL`, about what was shown from `POLL_SINCE` on.
`POLL_OPTIONS`, a line each, the last of which means "not yet"; without them a reply with "yes" in it is the signal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from videoprune.eval.benchmarks.scores import Row
from videoprune.types import Sample

ASKED_AT, DUE, ANSWERED_AT = "asked_at", "due", "answered_at"
POLL, POLL_SINCE, POLL_OPTIONS = "poll", "poll_since", "poll_options"
POLLED = 4  # seconds after the due time at which StreamingBench's script stops asking
NO_PREDICTION = "no prediction"  # kind and reason of a row that nobody answered


def seconds_of(text: str) -> int:
    """00:03:10 -> 190; any number of parts, each 60 of the next, as StreamingBench's script reads them.

    Raises ValueError for anything else.
    """
    parts = text.strip().split(":")
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise ValueError(f"time={text!r}; allowed: hours:minutes:seconds")
    return sum(int(part) * 60**i for i, part in enumerate(reversed(parts)))


def time_stamp(seconds: int) -> str:
    """190 -> 00:03:10."""
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def is_standing(of: Sample | Mapping[str, Any]) -> bool:
    """Whether a question, or the row of one, is a standing one."""
    return DUE in (of.meta if isinstance(of, Sample) else of.get("meta", {}))


def late_by(row: Mapping[str, Any]) -> float | None:
    """Seconds from when an answer was due to when it came, below 0 for early ones; None where it has no time, or was
    not due at all."""
    meta = row.get("meta", {})
    if not meta.get(ANSWERED_AT) or not meta.get(DUE):
        return None
    return float(meta[ANSWERED_AT]) - float(meta[DUE])


def in_time(row: Mapping[str, Any], tolerance: float = 2.0) -> bool:
    """Whether the answer to a standing question came when it was due, give or take; for what never comes, whether none
    did."""
    meta = row.get("meta", {})
    if not meta.get(DUE):
        return not meta.get(ANSWERED_AT)
    late = late_by(row)
    return late is not None and abs(late) <= tolerance


def answer_time(row: Mapping[str, Any]) -> dict[str, str]:
    """`ANSWERED_AT` of a row, or of a line of predictions, where it says so."""
    found = row.get("meta", row).get(ANSWERED_AT)
    return {} if found is None else {ANSWERED_AT: str(found)}


def without_unasked(rows: Sequence[Row]) -> tuple[list[Row], int]:
    """The rows but those of standing questions that nobody asked, and how many these are."""
    left = [
        row for row in rows if not (is_standing(row) and NO_PREDICTION in (row.get("kind"), row["reason"]))
    ]
    return left, len(rows) - len(left)


def standing_notes(rows: Sequence[Row], unasked: int = 0) -> list[str]:
    """Sentences on rows of standing questions. unasked: how many there are beside them."""
    silent = sum(not row.get("meta", {}).get(ANSWERED_AT) for row in rows)
    notes = [f"{silent} of {len(rows)} standing questions were never answered"] if silent else []
    return notes + ([f"{unasked} standing questions were not asked and do not count"] if unasked else [])
