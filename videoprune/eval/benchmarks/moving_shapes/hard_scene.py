"""Scenes of the split `hard`: two shots with a cut, small objects that look alike, some there for a moment only.

A clip is 32 slots long, one for each sampled frame. In each of its two shots 1 to 9 objects stay from the first slot
to the last; four or five more are there for two slots. An object is a sixth to a fifth of the frame wide, about a
patch, and lies in its own of 4 x 4 places. In half of the clips nothing moves but the sensor's noise.
No two objects share both colour and shape; one colour and one shape belong to one object each (the `lone` ones).
Lengths are fractions of the frame's side, x to the right, y down; times are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from videoprune.eval.benchmarks.moving_shapes.scene import (
    COLORS,
    DIRECTIONS,
    DURATIONS,
    SHAPES,
    MovingObject,
    Scene,
)

SLOTS = 32
MOMENT = 2  # slots that a short event lasts
MAX_STEADY = 9
SHOTS = ("first", "second")
SIDE = 4  # places along a side of the frame

_RADIUS = (0.085, 0.1)
_JITTER = 0.025  # of a place's centre
_CUT = (12, 20)  # slots, both may be
_BRIEF_SHARE = 0.75  # of the lone objects that are there for a moment only
_SPACED = 3  # slots between the starts of two short events, at least

Pair = tuple[str, str]


@dataclass(frozen=True)
class ShotObject(MovingObject):
    """An object that also leaves. Its path ends where it leaves."""

    leaves: float

    def visible(self, t: float) -> bool:
        return self.appears <= t < self.leaves

    def position(self, t: float, duration: float) -> tuple[float, float]:
        return super().position(t, self.leaves)


@dataclass(frozen=True)
class HardScene(Scene):
    """cut: seconds at which the second shot starts. still: nothing moves within a shot. lone: the colour and the shape
    that one object alone has. absent: a colour and a shape that none has."""

    cut: float
    still: bool
    lone: Pair
    absent: Pair

    def ground(self, t: float) -> tuple[int, float]:
        return self.background_seed + int(t >= self.cut), 0.0 if self.still else t

    def shots_of(self, name: str) -> tuple[str, ...]:
        """The shots in which an object called so is seen."""
        seen = {SHOTS[int(o.appears >= self.cut)] for o in self.objects if o.name == name}
        return tuple(shot for shot in SHOTS if shot in seen)

    def brief(self) -> tuple[ShotObject, ...]:
        """Objects that are there for a moment, in order."""
        short = MOMENT / SLOTS * self.duration * 1.5
        found = [o for o in self.objects if isinstance(o, ShotObject) and o.leaves - o.appears < short]
        return tuple(sorted(found, key=lambda o: o.appears))

    def steady(self, shot: str) -> tuple[ShotObject, ...]:
        """Objects that stay for a whole shot."""
        brief = self.brief()
        late = shot == SHOTS[1]
        found = [o for o in self.objects if isinstance(o, ShotObject) and o not in brief]
        return tuple(o for o in found if (o.appears >= self.cut) == late)


def sample_hard_scene(rng: np.random.Generator, *, duration_class: str | None = None) -> HardScene:
    """Draw a scene."""
    if duration_class is None:
        duration_class = str(rng.choice(list(DURATIONS)))
    duration, cut = DURATIONS[duration_class], int(rng.integers(_CUT[0], _CUT[1] + 1))
    still = bool(rng.random() < 0.5)
    colors, shapes = (list(map(str, rng.permutation(list(kinds)))) for kinds in (COLORS, SHAPES))
    names = _Names(rng, colors, shapes)
    spans = ((0, cut), (cut, SLOTS))
    starts = _moments(rng, int(rng.integers(4, 6)), cut)
    brief_lone = rng.random(2) < _BRIEF_SHARE  # colour, shape
    counts = rng.integers(1, MAX_STEADY + 1, size=2)
    shared = [names.next() for _ in range(int(rng.integers(0, min(2, *counts) + 1)))]
    objects: list[ShotObject] = []
    lone_steady = [p for p, brief in zip(names.lones, brief_lone, strict=True) if not brief]
    lone_brief = [p for p, brief in zip(names.lones, brief_lone, strict=True) if brief]
    homes = rng.integers(0, 2, size=2)  # the shots of lone objects that stay
    for shot, (start, end) in enumerate(spans):
        own = [p for p, home in zip(lone_steady, homes, strict=False) if home == shot]
        pairs = (own + shared)[: int(counts[shot])]
        pairs += [names.next() for _ in range(int(counts[shot]) - len(pairs))]
        free = [int(c) for c in rng.permutation(SIDE**2)]
        moments = [s for s in starts if start <= s < end]
        held = [(free.pop(), pair) for pair in pairs]
        spare = free[len(moments) :]  # what moving objects may glide to
        for cell, pair in held:
            goal = cell if still else neighbour(rng, cell, spare)
            objects.append(shot_object(rng, pair, cell, goal, *_seconds(start, end, duration)))
        for s in moments:
            cell = free.pop(0)
            pair = lone_brief.pop(0) if lone_brief else names.next()  # lone ones first
            objects.append(shot_object(rng, pair, cell, cell, *_seconds(s, s + MOMENT, duration)))
    seed = int(rng.integers(2**31))
    scene = HardScene(
        duration_class,
        duration,
        tuple(objects),
        False,
        seed,
        cut=cut / SLOTS * duration,
        still=still,
        lone=(colors[0], shapes[0]),
        absent=(colors[1], shapes[1]),
    )
    return scene if _whole(scene) else sample_hard_scene(rng, duration_class=duration_class)


class _Names:
    """Colours and shapes of a clip's objects. The first of each are the lone ones, the second ones are absent."""

    def __init__(self, rng: np.random.Generator, colors: list[str], shapes: list[str]) -> None:
        pairs = [(c, s) for c in colors[2:] for s in shapes[2:]]
        self.pairs = [pairs[i] for i in rng.permutation(len(pairs))]
        self.lones: list[Pair] = [
            (colors[0], str(rng.choice(shapes[2:]))),
            (str(rng.choice(colors[2:])), shapes[0]),
        ]

    def next(self) -> Pair:
        return self.pairs.pop()


def _whole(scene: HardScene) -> bool:
    """Whether both lone objects found their place."""
    colors, shapes = ([getattr(o, k) for o in scene.objects] for k in ("color", "shape"))
    return colors.count(scene.lone[0]) == 1 and shapes.count(scene.lone[1]) == 1


def _moments(rng: np.random.Generator, count: int, cut: int) -> list[int]:
    """First slots of the short events: within a shot, not at its very start, spaced, in random order."""
    allowed = [s for s in range(1, SLOTS - MOMENT + 1) if s != cut and not s < cut < s + MOMENT]
    while True:
        found = [int(s) for s in rng.choice(allowed, size=count, replace=False)]
        if min(np.diff(sorted(found))) >= _SPACED:
            return found


def _seconds(start: int, end: int, duration: float) -> tuple[float, float]:
    """Slots as seconds."""
    return start / SLOTS * duration, end / SLOTS * duration


def neighbour(rng: np.random.Generator, cell: int, spare: list[int]) -> int:
    """A free place beside `cell`, which is then taken; `cell` itself where there is none."""
    row, column = divmod(cell, SIDE)
    near = [c for c in spare if abs(c // SIDE - row) + abs(c % SIDE - column) == 1]
    if not near:
        return cell
    goal = near[int(rng.integers(len(near)))]
    spare.remove(goal)
    return goal


def shot_object(
    rng: np.random.Generator, pair: Pair, cell: int, goal: int, appears: float, leaves: float
) -> ShotObject:
    """One in the place `cell` that glides to `goal` while it is there."""
    offset = rng.uniform(-_JITTER, _JITTER, size=2)
    start, end = (
        ((c % SIDE + 0.5) / SIDE + offset[0], (c // SIDE + 0.5) / SIDE + offset[1]) for c in (cell, goal)
    )
    way = (goal % SIDE - cell % SIDE, goal // SIDE - cell // SIDE)
    direction = next((name for name, step in DIRECTIONS.items() if step == way), "")
    radius = float(rng.uniform(*_RADIUS))
    return ShotObject(
        *pair, "", radius, _point(start), _point(end), direction, appears=appears, leaves=leaves
    )


def _point(values: tuple[np.floating, np.floating]) -> tuple[float, float]:
    return float(values[0]), float(values[1])
