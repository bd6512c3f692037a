"""Questions of the split `hard`. Three in four are about an object that is there for a moment; in the categories with
the option `not shown` that is the true answer one time in four."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from videoprune.eval.benchmarks.moving_shapes.hard_scene import MAX_STEADY, SHOTS, HardScene, ShotObject
from videoprune.eval.benchmarks.moving_shapes.questions import Question, others
from videoprune.eval.benchmarks.moving_shapes.scene import COLORS, SHAPES

TITLES = {
    "color": "Color",
    "shape": "Shape",
    "place": "Place",
    "shot": "Before or after the cut",
    "order": "Order of short events",
    "present": "Shown or not",
    "count": "Counting",
}
CATEGORIES = tuple(TITLES)
NOT_SHOWN = "not shown"
QUARTERS = ("top left", "top right", "bottom left", "bottom right")
_IN_SHOTS = {
    ("first",): "in the first shot",
    ("second",): "in the second shot",
    SHOTS: "in both shots",
    (): NOT_SHOWN,
}
_ABSENT_SHARE, _BRIEF_SHARE = 0.25, 0.75


def questions(scene: HardScene, rng: np.random.Generator) -> list[Question]:
    """A question of each category that `scene` answers without doubt, two of color, shape, count and order."""
    return [
        *_kinds(scene, rng),
        *_places(scene, rng),
        _shots(scene, rng),
        *_orders(scene, rng),
        *_present(scene, rng),
        *(_count(scene, shot, rng) for shot in SHOTS),
    ]


def pick(scene: HardScene, category: str, rng: np.random.Generator) -> Question | None:
    """One question of `category`, or None if the scene has none."""
    fitting = [q for q in questions(scene, rng) if q.category == category]
    if category in (
        "color",
        "shape",
    ):  # the first is about the lone object, the second about what is not there
        return fitting[int(rng.random() < _ABSENT_SHARE)]
    return fitting[int(rng.integers(len(fitting)))] if fitting else None


def _kinds(scene: HardScene, rng: np.random.Generator) -> list[Question]:
    found = []
    for color, absent in ((scene.lone[0], False), (scene.absent[0], True)):
        answer = NOT_SHOWN if absent else next(o.shape for o in scene.objects if o.color == color)
        wrong = _with_not_shown(answer, SHAPES, rng)
        found.append(Question("shape", f"What shape is the {color} object?", answer, wrong))
    for shape, absent in ((scene.lone[1], False), (scene.absent[1], True)):
        answer = NOT_SHOWN if absent else next(o.color for o in scene.objects if o.shape == shape)
        wrong = _with_not_shown(answer, COLORS, rng)
        found.append(Question("color", f"What color is the {shape}?", answer, wrong))
    return found


def _places(scene: HardScene, rng: np.random.Generator) -> list[Question]:
    obj = _subject(scene, rng)
    if rng.random() < _ABSENT_SHARE:
        found = [(name, NOT_SHOWN) for name in look_alikes(scene, rng)[:1]]
    else:
        found = [(obj.name, quarter(obj))] if obj else []
    return [
        Question("place", f"Where is the {name}?", answer, _with_not_shown(answer, QUARTERS, rng))
        for name, answer in found
    ]


def _shots(scene: HardScene, rng: np.random.Generator) -> Question:
    kind = int(rng.integers(4))
    both = [n for n in {o.name for o in scene.objects} if len(scene.shots_of(n)) == 2]
    absent = look_alikes(scene, rng)
    if kind == 0 and both:
        name = sorted(both)[int(rng.integers(len(both)))]
    elif kind == 1 and absent:
        name = absent[0]
    else:
        brief = scene.brief()
        name = brief[int(rng.integers(len(brief)))].name
    answer = _IN_SHOTS[scene.shots_of(name)]
    wrong = tuple(str(w) for w in rng.permutation([a for a in _IN_SHOTS.values() if a != answer]))
    return Question("shot", f"When is the {name} shown?", answer, wrong)


def _orders(scene: HardScene, rng: np.random.Generator) -> list[Question]:
    brief = [o.name for o in scene.brief()]
    found = []
    for word, answer in (("first", brief[0]), ("last", brief[-1])):
        wrong = tuple(str(n) for n in rng.permutation([n for n in brief if n != answer]))
        found.append(Question("order", f"Which of these objects is shown {word}?", answer, wrong))
    return found


def _present(scene: HardScene, rng: np.random.Generator) -> list[Question]:
    obj = _subject(scene, rng, still_only=False)
    wrong = look_alikes(scene, rng)
    if obj is None or len(wrong) < 3:
        return []
    return [Question("present", "Which of these objects is shown?", obj.name, tuple(wrong))]


def _count(scene: HardScene, shot: str, rng: np.random.Generator) -> Question:
    """Wrong counts are near the true one."""
    answer = len(scene.steady(shot))
    near = [n for n in range(1, MAX_STEADY + 1) if n != answer and abs(n - answer) <= 4]
    wrong = tuple(str(n) for n in rng.permutation(near))
    return Question("count", f"How many objects stay for the whole {shot} shot?", str(answer), wrong)


def _subject(scene: HardScene, rng: np.random.Generator, *, still_only: bool = True) -> ShotObject | None:
    """Mostly one that is there for a moment; else one that stays, in one shot only and, if asked, in one place."""
    brief = scene.brief()
    if rng.random() < _BRIEF_SHARE:
        return brief[int(rng.integers(len(brief)))]
    stay = [o for shot in SHOTS for o in scene.steady(shot) if len(scene.shots_of(o.name)) == 1]
    stay = [o for o in stay if not (still_only and o.direction)]
    return stay[int(rng.integers(len(stay)))] if stay else None


def look_alikes(scene: HardScene, rng: np.random.Generator) -> list[str]:
    """Names of objects that are not there, though their colour and their shape are: in random order."""
    colors, shapes = ({getattr(o, k) for o in scene.objects} for k in ("color", "shape"))
    there = {o.name for o in scene.objects}
    names = [f"{c} {s}" for c in COLORS for s in SHAPES if c in colors and s in shapes]
    return [str(n) for n in rng.permutation([n for n in names if n not in there])]


def quarter(obj: ShotObject) -> str:
    """In which quarter of the frame it is when it comes."""
    x, y = obj.start
    return QUARTERS[2 * int(y > 0.5) + int(x > 0.5)]


def _with_not_shown(answer: str, pool: Iterable[str], rng: np.random.Generator) -> tuple[str, ...]:
    """Wrong answers, `not shown` always among the first three."""
    wrong = others(answer, [], pool, rng)
    return wrong if answer == NOT_SHOWN else (NOT_SHOWN, *wrong)
