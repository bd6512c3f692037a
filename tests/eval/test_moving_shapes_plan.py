"""Rows of MovingShapes: balance, columns, and answers that a slow oracle finds again in scene and pixels."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from videoprune.eval.benchmarks.moving_shapes.plan import (
    TEST_SEEDS,
    ClipPlan,
    Row,
    answer_letter,
    plan_clip,
)
from videoprune.eval.benchmarks.moving_shapes.questions import CATEGORIES, TITLES
from videoprune.eval.benchmarks.moving_shapes.render import render
from videoprune.eval.benchmarks.moving_shapes.scene import MovingObject, Scene

COLUMNS = ["video_id", "duration", "domain", "sub_category", "url", "videoID", "question_id"]
COLUMNS += ["task_type", "question", "options", "answer"]


@pytest.fixture(scope="module")
def plans() -> list[ClipPlan]:
    return [plan_clip(i, 0) for i in range(200)]


def rows_of(plans: list[ClipPlan]) -> list[Row]:
    return [row for plan in plans for row in plan.rows]


def test_balance(plans: list[ClipPlan]) -> None:
    rows = rows_of(plans)
    assert len(rows) == 600
    categories = Counter(row["sub_category"] for row in rows)
    assert set(categories) == set(CATEGORIES)
    assert max(categories.values()) - min(categories.values()) <= 1
    durations = Counter(plan.scene.duration_class for plan in plans)
    assert set(durations) == {"short", "medium", "long"}
    assert max(durations.values()) - min(durations.values()) <= 1
    for category in CATEGORIES:
        letters = Counter(row["answer"] for row in rows if row["sub_category"] == category)
        assert set(letters) == set("ABCD")
        assert max(letters.values()) - min(letters.values()) <= 1


def test_columns_of_video_mme(plans: list[ClipPlan]) -> None:
    for index, plan in enumerate(plans):
        assert len({row["sub_category"] for row in plan.rows}) == 3
        for number, row in enumerate(plan.rows, start=1):
            assert list(row) == COLUMNS
            assert all(isinstance(value, str) for name, value in row.items() if name != "options")
            assert row["video_id"] == f"{index + 1:03d}"
            assert row["question_id"] == f"{index + 1:03d}-{number}"
            assert row["videoID"] == plan.stem
            assert row["duration"] == plan.scene.duration_class
            assert row["task_type"] == TITLES[str(row["sub_category"])]
    assert len({row["question_id"] for row in rows_of(plans)}) == 600


def test_options_hold_the_answer_once(plans: list[ClipPlan]) -> None:
    for row in rows_of(plans):
        assert [option[:3] for option in row["options"]] == ["A. ", "B. ", "C. ", "D. "]
        assert len({option[3:] for option in row["options"]}) == 4
        assert row["answer"] in {"A", "B", "C", "D"}


def named(called: str, scene: Scene) -> MovingObject:
    fitting = [o for o in scene.objects if called in (f"{o.color} {o.shape}", f"{o.color} object", o.shape)]
    assert len(fitting) == 1, f"{called!r} names {len(fitting)} objects"
    return fitting[0]


def first_seen(scene: Scene, owner: np.ndarray, times: np.ndarray) -> dict[str, float]:
    """When each object's pixels show up first, by looking at every drawn frame."""
    seen: dict[str, float] = {}
    for f, t in enumerate(times):
        for i, obj in enumerate(scene.objects):
            if (owner[f] == i).any() and obj.name not in seen:
                seen[obj.name] = float(t)
    return seen


def side_of(a: MovingObject, b: MovingObject, scene: Scene) -> str:
    """The one side on which `a` is of `b` at each of 200 moments at which both are there."""
    sides = set()
    for t in np.linspace(max(a.appears, b.appears), scene.duration, 200):
        (ax, ay), (bx, by) = a.position(t, scene.duration), b.position(t, scene.duration)
        if abs(ax - bx) > abs(ay - by):
            sides.add("left" if ax < bx else "right")
        else:
            sides.add("above" if ay < by else "below")
    assert len(sides) == 1
    return sides.pop()


def moved(obj: MovingObject, scene: Scene) -> str:
    t0, t1 = obj.appears + 0.1, scene.duration - 0.1
    (x0, y0), (x1, y1) = obj.position(t0, scene.duration), obj.position(t1, scene.duration)
    if abs(x1 - x0) > abs(y1 - y0):
        return "right" if x1 > x0 else "left"
    assert y1 != y0
    return "down" if y1 > y0 else "up"


def true_answer(row: Row, scene: Scene, owner: np.ndarray, times: np.ndarray) -> str:
    words = str(row["question"]).rstrip("?").split(" ")
    match row["sub_category"]:
        case "color":  # What color is the circle
            return next(o.color for o in scene.objects if o.shape == words[-1])
        case "shape":  # What shape is the red object
            return next(o.shape for o in scene.objects if o.color == words[-2])
        case "detail":  # Which character is on the red circle
            return named(" ".join(words[5:]), scene).character
        case "direction":  # In which direction does the red circle move
            return moved(named(" ".join(words[5:-1]), scene), scene)
        case "count":
            return str(len({int(i) for i in np.unique(owner)} - {-1}))
        case "order":  # Which object appears first
            seen = first_seen(scene, owner, times)
            assert len(set(seen.values())) == len(scene.objects)
            return (min if words[-1] == "first" else max)(seen, key=lambda name: seen[name])
        case "relation":  # Where is the red circle relative to the star
            middle = words.index("relative")
            a, b = " ".join(words[3:middle]), " ".join(words[middle + 3 :])
            return side_of(named(a, scene), named(b, scene), scene)
    raise AssertionError(row)


def test_answers_are_true(plans: list[ClipPlan]) -> None:
    checked: Counter[str] = Counter()
    for plan in plans[:70]:
        times = np.arange(0, plan.scene.duration, 0.5)
        _, owner = render(plan.scene, times, 48)
        for row in plan.rows:
            chosen = row["options"]["ABCD".index(str(row["answer"]))]
            assert chosen[3:] == true_answer(row, plan.scene, owner, times), row
            checked[str(row["sub_category"])] += 1
    assert min(checked[c] for c in CATEGORIES) >= 20


def test_same_seed_same_plan_and_other_seed_other_plan() -> None:
    assert plan_clip(5, 3) == plan_clip(5, 3)
    assert plan_clip(5, 3).scene != plan_clip(5, 4).scene
    assert plan_clip(5, 3).scene != plan_clip(6, 3).scene


def test_letters_depend_on_the_seed() -> None:
    letters = ["".join(answer_letter(slot, seed, 7) for slot in range(0, 280, 7)) for seed in (0, 1)]
    assert letters[0] != letters[1]


@pytest.mark.parametrize("seed", [-1, TEST_SEEDS, 2**40, 1.0, True])
def test_seeds_of_the_training_scenes_are_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=r"seed=.*allowed: whole numbers from 0 to 999999999"):
        plan_clip(0, seed)
    plan_clip(0, TEST_SEEDS - 1)
