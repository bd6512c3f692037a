"""MovingShapes scenes: what is in a clip, as plain numbers, before any pixel.

Lengths are fractions of the frame's side, x to the right, y down; times are seconds.
Within a clip no two objects share a colour, a shape or a character, so every question has one answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (215, 40, 40),
    "green": (40, 170, 60),
    "blue": (45, 75, 220),
    "yellow": (235, 220, 50),
    "purple": (150, 50, 190),
    "orange": (240, 135, 30),
    "cyan": (60, 205, 220),
    "white": (240, 240, 240),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond")
CHARACTERS = "234579EHKT"
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
DURATIONS = {"short": 4.0, "medium": 8.0, "long": 16.0}
MAX_OBJECTS = 4

_RADIUS = (0.135, 0.175)
_TRAVEL = (0.26, 0.46)
_MARGIN = 0.02
_CHECK_STEPS = 9


@dataclass(frozen=True)
class MovingObject:
    """One object: from `start` at `appears` to `end` at the clip's end, at constant speed."""

    color: str
    shape: str
    character: str
    radius: float
    start: tuple[float, float]
    end: tuple[float, float]
    direction: str
    appears: float

    @property
    def name(self) -> str:
        return f"{self.color} {self.shape}"

    def visible(self, t: float) -> bool:
        """Whether it is there at `t` seconds."""
        return t >= self.appears

    def position(self, t: float, duration: float) -> tuple[float, float]:
        """Centre (x, y) at `t` seconds; before `appears` it is the start."""
        span = max(duration - self.appears, 1e-9)
        a = min(max((t - self.appears) / span, 0.0), 1.0)
        return (
            self.start[0] + a * (self.end[0] - self.start[0]),
            self.start[1] + a * (self.end[1] - self.start[1]),
        )


@dataclass(frozen=True)
class Scene:
    """One clip. `staggered`: the objects appear one after another, else all are there from the start."""

    duration_class: str
    duration: float
    objects: tuple[MovingObject, ...]
    staggered: bool
    background_seed: int

    def ground(self, t: float) -> tuple[int, float]:
        """What lies behind the objects at `t` seconds: the texture's seed, and how far it has drifted, in seconds."""
        return self.background_seed, t

    def in_order(self) -> tuple[MovingObject, ...]:
        return tuple(sorted(self.objects, key=lambda o: o.appears))

    def relation(self, a: MovingObject, b: MovingObject) -> str:
        """Where `a` is relative to `b`, if one answer is clear whenever both are there; else ''."""
        seen = set()
        for t in np.linspace(max(a.appears, b.appears), self.duration, _CHECK_STEPS):
            ax, ay = a.position(float(t), self.duration)
            bx, by = b.position(float(t), self.duration)
            seen.add(_side(ax - bx, ay - by))
        return seen.pop() if len(seen) == 1 else ""


def _side(dx: float, dy: float) -> str:
    if abs(dx) > 1.4 * abs(dy) and abs(dx) > 0.2:
        return "right" if dx > 0 else "left"
    if abs(dy) > 1.4 * abs(dx) and abs(dy) > 0.2:
        return "below" if dy > 0 else "above"
    return ""


def sample_scene(
    rng: np.random.Generator, *, duration_class: str | None = None, staggered: bool | None = None
) -> Scene:
    """Draw a scene. Objects never overlap at a moment at which both are visible."""
    if duration_class is None:
        duration_class = str(rng.choice(list(DURATIONS)))
    if staggered is None:
        staggered = bool(rng.random() < 0.5)
    duration = DURATIONS[duration_class]
    count = int(rng.integers(2 if staggered else 1, MAX_OBJECTS + 1))
    while True:
        objects = _sample_objects(rng, count, duration, staggered)
        if objects is not None:
            return Scene(duration_class, duration, objects, staggered, int(rng.integers(2**31)))


def _appearance_times(rng: np.random.Generator, count: int, duration: float, staggered: bool) -> list[float]:
    if not staggered:
        return [0.0] * count
    # Slots of 0.19 of the clip: at eight uniform frames each object is seen before the next one comes.
    slots = np.sort(rng.choice(4, size=count, replace=False))
    slots = slots - slots[0]
    return [float(s) * 0.19 * duration for s in rng.permutation(slots)]


def _sample_objects(
    rng: np.random.Generator, count: int, duration: float, staggered: bool
) -> tuple[MovingObject, ...] | None:
    colors = rng.permutation(list(COLORS))[:count]
    shapes = rng.permutation(list(SHAPES))[:count]
    characters = rng.permutation(list(CHARACTERS))[:count]
    appears = _appearance_times(rng, count, duration, staggered)
    placed: list[MovingObject] = []
    for i in range(count):
        for _ in range(30):
            start, end, direction = _sample_path(rng, radius := float(rng.uniform(*_RADIUS)))
            new = MovingObject(
                str(colors[i]), str(shapes[i]), str(characters[i]), radius, start, end, direction, appears[i]
            )
            if all(_apart(new, old, duration) for old in placed):
                placed.append(new)
                break
        else:
            return None
    return tuple(placed)


def _sample_path(
    rng: np.random.Generator, radius: float
) -> tuple[tuple[float, float], tuple[float, float], str]:
    low, high = radius + _MARGIN, 1 - radius - _MARGIN
    direction = "" if rng.random() < 0.25 else str(rng.choice(list(DIRECTIONS)))
    dx, dy = DIRECTIONS.get(direction, (0, 0))
    travel = float(rng.uniform(*_TRAVEL))
    start = [float(v) for v in rng.uniform(low, high, size=2)]
    for axis, step in enumerate((dx, dy)):
        if step > 0:
            start[axis] = float(rng.uniform(low, high - travel))
        elif step < 0:
            start[axis] = float(rng.uniform(low + travel, high))
    end = (start[0] + dx * travel, start[1] + dy * travel)
    return (start[0], start[1]), end, direction


def _apart(a: MovingObject, b: MovingObject, duration: float) -> bool:
    times = np.linspace(max(a.appears, b.appears), duration, _CHECK_STEPS)
    gap = 0.98 * (a.radius + b.radius)
    for t in times:
        ax, ay = a.position(float(t), duration)
        bx, by = b.position(float(t), duration)
        if (ax - bx) ** 2 + (ay - by) ** 2 < gap**2:
            return False
    return True
