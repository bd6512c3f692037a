"""Rows of MovingShapes streams: which streams there are and what is asked when, before any pixel.

A stream depends only on the seed, its length and its index, so a small benchmark is the beginning of a larger one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from videoprune.eval.benchmarks.moving_shapes.plan import Row, answer_letter, check_seed, lettered
from videoprune.eval.benchmarks.moving_stream.questions import ASKED, TITLES, Asked, Moment, ask
from videoprune.eval.benchmarks.moving_stream.scene import Stream, sample_stream
from videoprune.eval.benchmarks.stream_times import time_stamp

MOMENTS = (0.4, 0.6, 0.8, 0.95)  # of the stream, at which a question of each kind is asked
_KINDS = (*ASKED, "alert")
_TRIES = 40  # at a question, before another stream is drawn
_STREAMS = 500  # drawn for one plan, at most; a few are enough
_STREAM = 3  # keeps streams apart from the scenes of moving-shapes


@dataclass(frozen=True)
class StreamPlan:
    """One stream: what is drawn, and its rows."""

    stem: str
    stream: Stream
    rows: tuple[Row, ...]


def stream_stem(index: int) -> str:
    return f"moving_stream_{index + 1:03d}"


def plan_stream(index: int, seed: int, minutes: float = 5) -> StreamPlan:
    """Stream `index` (from 0) of the benchmark of `seed`: a question of each kind at each of four moments.

    Raises ValueError for a seed outside 0 .. 999,999,999, or a length that there is not.
    """
    check_seed(seed)
    rng = np.random.default_rng([seed, index, round(60 * minutes), _STREAM])
    for _ in range(_STREAMS):
        stream = sample_stream(rng, minutes=minutes)
        asked = ask_all(stream, rng)
        if asked is not None:
            rows = tuple(_row(index, number, seed, minutes, one, rng) for number, one in enumerate(asked))
            return StreamPlan(stream_stem(index), stream, rows)
    raise AssertionError(f"none of {_STREAMS} streams of {minutes} minutes has a question of each kind")


def ask_all(stream: Stream, rng: np.random.Generator) -> list[Asked] | None:
    """A question of each kind at each moment, or None if the stream has one less."""
    found = []
    for share in MOMENTS:
        moment = _moment(stream, round(share * stream.duration))
        for kind in _KINDS:
            asked = _try(moment, kind, rng) if moment else None
            if asked is None:
                return None
            found.append(asked)
    return found


def _moment(stream: Stream, about: int) -> Moment | None:
    """The settled moment nearest before `about`."""
    for t in range(about, max(about - 30, 0), -1):
        moment = Moment(stream, t)
        if moment.settled:
            return moment
    return None


def _try(moment: Moment, kind: str, rng: np.random.Generator) -> Asked | None:
    for _ in range(_TRIES):
        asked = ask(moment, kind, rng)
        if asked is not None:
            return asked
    return None


def _row(index: int, number: int, seed: int, minutes: float, asked: Asked, rng: np.random.Generator) -> Row:
    """In the columns of StreamingBench, and what else is known."""
    q, video_id = asked.question, f"{index + 1:03d}"
    row: Row = {
        "question_id": f"{video_id}-{number + 1}",
        "task_type": TITLES[q.category],
        "question": q.text,
        "time_stamp": time_stamp(asked.t),
        "kind": q.category,
        "video_id": video_id,
        "videoID": stream_stem(index),
        "duration": f"{minutes:g} min",
        "clues": [f"{time_stamp(start)}-{time_stamp(end)}" for start, end in asked.clues],
    }
    if q.category == "alert":
        due = "" if asked.due is None else time_stamp(asked.due)
        return row | {"ground_truth_time_stamp": due, "ground_truth_output": q.answer}
    slot = index * len(MOMENTS) * len(_KINDS) + number
    letter = answer_letter(slot, seed, len(_KINDS))
    return row | {"options": lettered(q, letter, rng), "answer": letter}
