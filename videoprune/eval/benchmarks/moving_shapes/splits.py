"""The two splits of MovingShapes: `standard`, and `hard`, on which dropping tokens blindly costs answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from videoprune.eval.benchmarks.moving_shapes import hard_questions, questions
from videoprune.eval.benchmarks.moving_shapes.hard_scene import SLOTS, sample_hard_scene
from videoprune.eval.benchmarks.moving_shapes.questions import Question
from videoprune.eval.benchmarks.moving_shapes.scene import Scene, sample_scene

Draw = Callable[[Sequence[str], str, np.random.Generator], Scene]
Pick = Callable[..., Question | None]


@dataclass(frozen=True)
class Split:
    """titles: of the categories, by name, in the order in which they take turns. draw(categories, duration class, rng):
    a scene that may be asked about them. pick(scene, category, rng): a question, or None. frames: of a clip that answer
    all; None: as many as the model is best given. fps: of the files."""

    name: str
    titles: dict[str, str]
    draw: Draw
    pick: Pick
    frames: int | None = None
    fps: float = 10

    @property
    def categories(self) -> tuple[str, ...]:
        return tuple(self.titles)


def _standard(categories: Sequence[str], duration: str, rng: np.random.Generator) -> Scene:
    return sample_scene(rng, duration_class=duration, staggered=True if "order" in categories else None)


def _hard(categories: Sequence[str], duration: str, rng: np.random.Generator) -> Scene:
    return sample_hard_scene(rng, duration_class=duration)


SPLITS = {
    "standard": Split("standard", questions.TITLES, _standard, questions.pick),
    # 16 frames a second: each of the SLOTS sampled times falls on a frame of its slot, in the shortest clips too.
    "hard": Split("hard", hard_questions.TITLES, _hard, hard_questions.pick, frames=SLOTS, fps=16),
}


def split_named(name: str) -> Split:
    """Raises ValueError with the known names."""
    if name not in SPLITS:
        raise ValueError(f"split={name!r}; allowed: {', '.join(SPLITS)}")
    return SPLITS[name]
