"""MovingShapes questions: every question that a scene answers without doubt, by category."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from videoprune.eval.benchmarks.moving_shapes.scene import (
    CHARACTERS,
    COLORS,
    DIRECTIONS,
    SHAPES,
    MovingObject,
    Scene,
)

TITLES = {
    "color": "Color",
    "shape": "Shape",
    "direction": "Direction of motion",
    "count": "Counting",
    "order": "Order of appearance",
    "relation": "Spatial relation",
    "detail": "Fine detail",
}
CATEGORIES = tuple(TITLES)
LETTERS = "ABCD"
_SIDES = ("left", "right", "above", "below")


@dataclass(frozen=True)
class Question:
    """One question, its true answer in words, and wrong answers, the hardest first."""

    category: str
    text: str
    answer: str
    wrong: tuple[str, ...]


def questions(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """All questions of `scene`, several per category. Wrong answers come first from the same clip."""
    found = [
        Question(
            "count",
            "How many objects appear in the video?",
            str(len(scene.objects)),
            others(str(len(scene.objects)), [], "1234", rng),
        )
    ]
    for obj in scene.objects:
        rest = [o for o in scene.objects if o is not obj]
        found += _about_one(obj, rest, rng)
    found += _relations(scene, rng)
    if scene.staggered:
        found += _orders(scene, rng)
    return found


def pick(scene: Scene, category: str, rng: np.random.Generator) -> Question | None:
    """One question of `category`, or None if the scene has none."""
    fitting = [q for q in questions(scene, rng) if q.category == category]
    return fitting[int(rng.integers(len(fitting)))] if fitting else None


def with_options(question: Question, rng: np.random.Generator) -> tuple[list[str], str]:
    """Four options in random order and the letter of the true one."""
    options = [question.answer, *question.wrong[:3]]
    order = rng.permutation(4)
    return [options[i] for i in order], LETTERS[int(np.flatnonzero(order == 0)[0])]


def _about_one(obj: MovingObject, rest: list[MovingObject], rng: np.random.Generator) -> list[Question]:
    called = _call(obj, rng)
    found = [
        Question(
            "color",
            f"What color is the {obj.shape}?",
            obj.color,
            others(obj.color, [o.color for o in rest], COLORS, rng),
        ),
        Question(
            "shape",
            f"What shape is the {obj.color} object?",
            obj.shape,
            others(obj.shape, [o.shape for o in rest], SHAPES, rng),
        ),
        Question(
            "detail",
            f"Which character is on the {called}?",
            obj.character,
            others(obj.character, [o.character for o in rest], CHARACTERS, rng),
        ),
    ]
    if obj.direction:
        found.append(
            Question(
                "direction",
                f"In which direction does the {called} move?",
                obj.direction,
                others(obj.direction, [], DIRECTIONS, rng),
            )
        )
    return found


def _relations(scene: Scene, rng: np.random.Generator) -> list[Question]:
    found = []
    for a in scene.objects:
        for b in scene.objects:
            side = scene.relation(a, b) if a is not b else ""
            if side:
                text = f"Where is the {_call(a, rng)} relative to the {_call(b, rng)}?"
                found.append(Question("relation", text, side, others(side, [], _SIDES, rng)))
    return found


def _orders(scene: Scene, rng: np.random.Generator) -> list[Question]:
    ordered = scene.in_order()
    names = [o.name for o in ordered]
    free_colors = [c for c in COLORS if c not in {o.color for o in ordered}]
    free_shapes = [s for s in SHAPES if s not in {o.shape for o in ordered}]
    absent = [f"{rng.choice(free_colors)} {s}" for s in free_shapes]
    return [
        Question("order", f"Which object appears {word}?", name, others(name, names, absent, rng))
        for word, name in (("first", names[0]), ("last", names[-1]))
    ]


def _call(obj: MovingObject, rng: np.random.Generator) -> str:
    """Colours and shapes are unique in a clip, so either names the object; so do both."""
    return (obj.name, f"{obj.color} object", obj.shape)[int(rng.integers(3))]


def others(answer: str, near: list[str], pool: Iterable[str], rng: np.random.Generator) -> tuple[str, ...]:
    """At least three wrong answers: those of the same clip first, each part in random order."""
    first = [str(x) for x in rng.permutation(near) if x != answer] if near else []
    more = [str(x) for x in rng.permutation(list(pool)) if x != answer and x not in first]
    return tuple(first + more)
