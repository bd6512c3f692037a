"""MovingShapes streams: what is shown when, as plain numbers, before any pixel.

A stream is a row of shots, cut hard, each with its own ground. Objects are those of the split `hard`, about a patch
wide, and come and go within a shot; no two objects of a stream share both colour and shape. The 48 pairs play four
parts: the `cast` comes again and again, `rare` objects come one to four times, `needles` once, for a few seconds, and
the rest never. Times are whole seconds. Lengths are fractions of the frame's side.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from videoprune.eval.benchmarks.moving_shapes.hard_questions import quarter
from videoprune.eval.benchmarks.moving_shapes.hard_scene import SIDE, Pair, ShotObject, neighbour, shot_object
from videoprune.eval.benchmarks.moving_shapes.scene import COLORS, SHAPES, Scene

CAST, RARE, NEEDLES = 8, 8, 12
MOST_VISITS = 4  # of a rare object
APART = 8  # seconds between two visits of one object, at least
MIN_MINUTES, MAX_MINUTES = 4, 180  # in less there is no long ago

_SHOT = (10, 20)  # seconds
_AT_ONCE = (2, 3)  # of the cast in a shot
_RARE_STAY, _NEEDLE_STAY = (5, 8), (3, 5)  # seconds, both ends may be
_WHOLE_SHARE, _STILL_SHARE = 0.5, 0.5


@dataclass(frozen=True)
class Visit:
    """One stay of an object, from `start` to `end`, seconds of the stream. quarter: of the frame, where it stays in one
    place."""

    name: str
    start: int
    end: int
    quarter: str


@dataclass(frozen=True)
class Shot(Scene):
    """One shot, its times counted from its own start. still: nothing moves but the sensor's noise."""

    still: bool

    def ground(self, t: float) -> tuple[int, float]:
        return self.background_seed, 0.0 if self.still else t


@dataclass(frozen=True)
class Stream:
    """shots in order; starts: when each begins. absent: names that are never shown."""

    duration: int
    shots: tuple[Shot, ...]
    starts: tuple[int, ...]
    absent: tuple[str, ...]

    @cached_property
    def visits(self) -> tuple[Visit, ...]:
        """In the order in which they begin."""
        found = [
            Visit(
                o.name, start + round(o.appears), start + round(o.leaves), "" if o.direction else quarter(o)
            )
            for start, shot in zip(self.starts, self.shots, strict=True)
            for o in shot.objects
            if isinstance(o, ShotObject)
        ]
        return tuple(sorted(found, key=lambda v: (v.start, v.name)))

    def visits_of(self, name: str) -> tuple[Visit, ...]:
        return tuple(v for v in self.visits if v.name == name)

    def shot_at(self, t: float) -> tuple[Shot, float]:
        """The shot at `t` seconds, and the seconds since it began."""
        at = max(0, bisect_right(self.starts, t) - 1)
        return self.shots[at], t - self.starts[at]


def sample_stream(rng: np.random.Generator, *, minutes: float = 5) -> Stream:
    """Draw a stream. Raises ValueError for a length that there is not."""
    if not MIN_MINUTES <= minutes <= MAX_MINUTES:
        raise ValueError(f"minutes={minutes}; allowed: {MIN_MINUTES} to {MAX_MINUTES}")
    duration = round(60 * minutes)
    pairs = [(c, s) for c in COLORS for s in SHAPES]
    names = [pairs[i] for i in rng.permutation(len(pairs))]
    starts = _cuts(rng, duration)
    spans = list(pairwise([*starts, duration]))
    stays: list[list[tuple[Pair, int, int]]] = [
        [] for _ in spans
    ]  # by shot: who, from when to when within it
    _place_cast(rng, names[:CAST], spans, stays)
    _place_rare(rng, names[CAST : CAST + RARE], spans, stays)
    _place_needles(rng, names[CAST + RARE : CAST + RARE + NEEDLES], spans, stays)
    shots = tuple(_shot(rng, end - start, here) for (start, end), here in zip(spans, stays, strict=True))
    absent = tuple(" ".join(pair) for pair in names[CAST + RARE + NEEDLES :])
    return Stream(duration, shots, tuple(starts), absent)


def _cuts(rng: np.random.Generator, duration: int) -> list[int]:
    """When shots begin; the last one is no shorter than the others."""
    found = [0]
    while duration - found[-1] >= sum(_SHOT):
        found.append(found[-1] + int(rng.integers(_SHOT[0], _SHOT[1] + 1)))
    return found


def _place_cast(
    rng: np.random.Generator, names: list[Pair], spans: list[tuple[int, int]], stays: list[list]
) -> None:
    """Two or three in each shot, none of them in the shot before; half stay for all of it."""
    before: list[Pair] = []
    for (start, end), here in zip(spans, stays, strict=True):
        free = [pair for pair in names if pair not in before]
        count = int(rng.integers(_AT_ONCE[0], _AT_ONCE[1] + 1))
        before = [free[i] for i in rng.permutation(len(free))[:count]]
        for pair in before:
            length = end - start
            stay = length if rng.random() < _WHOLE_SHARE else int(rng.integers(5, length + 1))
            first = int(rng.integers(0, length - stay + 1))
            here.append((pair, first, first + stay))


def _place_rare(
    rng: np.random.Generator, names: list[Pair], spans: list[tuple[int, int]], stays: list[list]
) -> None:
    """Each comes in one to four shots that are no neighbours."""
    for number, pair in enumerate(names):
        wanted = min(number % MOST_VISITS + 1, (len(spans) + 1) // 2)
        taken: list[int] = []
        while len(taken) < wanted:
            taken = []
            for at in map(int, rng.permutation(len(spans))):
                if len(taken) < wanted and all(abs(at - other) > 1 for other in taken):
                    taken.append(at)
        for at in taken:
            _stay(rng, pair, spans[at], _RARE_STAY, stays[at])


def _place_needles(
    rng: np.random.Generator, names: list[Pair], spans: list[tuple[int, int]], stays: list[list]
) -> None:
    """One in each equal part of the stream."""
    for number, pair in enumerate(names):
        t = (number + rng.random()) / len(names) * spans[-1][1]
        at = next(i for i, (_, end) in enumerate(spans) if t < end)
        _stay(rng, pair, spans[at], _NEEDLE_STAY, stays[at])


def _stay(
    rng: np.random.Generator, pair: Pair, span: tuple[int, int], lengths: tuple[int, int], here: list
) -> None:
    length = int(rng.integers(lengths[0], lengths[1] + 1))
    first = int(rng.integers(0, span[1] - span[0] - length + 1))
    here.append((pair, first, first + length))


def _shot(rng: np.random.Generator, length: int, stays: list[tuple[Pair, int, int]]) -> Shot:
    """Each stay in a place of its own. Where things move, those of the cast glide to a free place beside them."""
    still = bool(rng.random() < _STILL_SHARE)
    free = [int(c) for c in rng.permutation(SIDE**2)]
    held = [(free.pop(), stay) for stay in stays]
    objects = []
    for cell, (pair, first, end) in held:
        brief = end - first <= _RARE_STAY[1]
        goal = cell if still or brief else neighbour(rng, cell, free)
        objects.append(shot_object(rng, pair, cell, goal, float(first), float(end)))
    return Shot("", float(length), tuple(objects), False, int(rng.integers(2**31)), still=still)
