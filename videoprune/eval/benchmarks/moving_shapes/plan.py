"""MovingShapes rows: which clips there are and what is asked of each, before any pixel.

A clip depends only on the seed and its index, so a small benchmark is the beginning of a larger one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from videoprune.eval.benchmarks.moving_shapes.questions import LETTERS, Question, with_options
from videoprune.eval.benchmarks.moving_shapes.scene import DURATIONS, Scene
from videoprune.eval.benchmarks.moving_shapes.splits import SPLITS, Split, split_named

DOMAIN = "MovingShapes"
QUESTIONS_PER_CLIP = 3
TEST_SEEDS = 1_000_000_000  # test seeds lie below; the demo model's training scenes use seeds from here on
_LETTER_STREAM = 1  # keeps the generator of answer letters apart from those of the scenes
_HARD_STREAM = 2  # and the scenes of the splits apart

Row = dict[str, str | list[str]]


@dataclass(frozen=True)
class ClipPlan:
    """One clip: what is drawn, and its rows in the columns of Video-MME."""

    stem: str
    scene: Scene
    rows: tuple[Row, ...]


def clip_stem(index: int) -> str:
    """File name, without extension, of clip `index`."""
    return f"moving_shapes_{index + 1:03d}"


def plan_clip(index: int, seed: int, split: str = "standard") -> ClipPlan:
    """Clip `index` (from 0) of the benchmark of `seed`, of one of the `SPLITS`.

    Categories come first, in turn, so that they balance and a clip never asks two of one kind; durations take
    turns likewise. Then scenes are drawn until one has a question of each category.
    Raises ValueError for a seed outside 0 .. 999,999,999, or an unknown split.
    """
    check_seed(seed)
    one, first = split_named(split), index * QUESTIONS_PER_CLIP
    kinds = one.categories
    categories = [kinds[slot % len(kinds)] for slot in range(first, first + QUESTIONS_PER_CLIP)]
    duration = list(DURATIONS)[index % len(DURATIONS)]
    stream = [] if one is SPLITS["standard"] else [_HARD_STREAM]
    rng = np.random.default_rng([seed, index, *stream])
    scene, asked = _draw(one, categories, duration, rng)
    rows = tuple(
        _row(index, k, scene, question, answer_letter(first + k, seed, len(kinds)), one, rng)
        for k, question in enumerate(asked)
    )
    return ClipPlan(clip_stem(index), scene, rows)


def check_seed(seed: int) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < TEST_SEEDS:
        raise ValueError(
            f"seed={seed!r}; allowed: whole numbers from 0 to {TEST_SEEDS - 1}. "
            "Higher seeds belong to the training scenes."
        )


def answer_letter(slot: int, seed: int, categories: int) -> str:
    """The true letter of question `slot`: within a category every four questions have each letter once.

    categories: how many take turns."""
    turn, category = divmod(slot, categories)
    block, place = divmod(turn, len(LETTERS))
    order = np.random.default_rng([seed, category, block, _LETTER_STREAM]).permutation(len(LETTERS))
    return LETTERS[int(order[place])]


def lettered(question: Question, letter: str, rng: np.random.Generator) -> list[str]:
    """The four options, "A. red" to "D. blue", with the true one at `letter`."""
    options, drawn = with_options(question, rng)
    here, there = LETTERS.index(drawn), LETTERS.index(letter)
    options[here], options[there] = options[there], options[here]
    return [f"{name}. {text}" for name, text in zip(LETTERS, options, strict=True)]


def _draw(
    split: Split, categories: list[str], duration: str, rng: np.random.Generator
) -> tuple[Scene, list[Question]]:
    while True:
        scene = split.draw(categories, duration, rng)
        found = [split.pick(scene, category, rng) for category in categories]
        asked = [question for question in found if question is not None]
        if len(asked) == len(categories):
            return scene, asked


def _row(
    index: int,
    number: int,
    scene: Scene,
    question: Question,
    letter: str,
    split: Split,
    rng: np.random.Generator,
) -> Row:
    video_id = f"{index + 1:03d}"
    return {
        "video_id": video_id,
        "duration": scene.duration_class,
        "domain": DOMAIN,
        "sub_category": question.category,
        "url": "",
        "videoID": clip_stem(index),
        "question_id": f"{video_id}-{number + 1}",
        "task_type": split.titles[question.category],
        "question": question.text,
        "options": lettered(question, letter, rng),
        "answer": letter,
    }
