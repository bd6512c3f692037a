"""On which clips settings were chosen, and on which figures were taken: they should not be the same."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

REPORT_SEED = 2  # of MovingShapes: no choice was or will be made on its clips


@dataclass(frozen=True)
class Choice:
    """what: was chosen on the first `clips` clips of MovingShapes with this seed."""

    what: str
    seed: int
    clips: int


CHOICES = (
    Choice("schedules and shares of light, balanced and aggressive", 1, 600),
    Choice("how much they merge, and how units are compared there, on both splits", 1, 200),
    Choice("what is compared and protected inside the encoders, and the heads asked in the LLM", 0, 200),
    Choice("the choice over the clip behind one encoder", 0, 60),
    Choice("what time weighs in that choice", 1, 200),
)


def chosen_on() -> str:
    """A sentence for reports."""
    parts = [f"{c.what}: seed {c.seed}, first {c.clips} clips" for c in CHOICES]
    return (
        f"settings of ours were chosen on MovingShapes ({'; '.join(parts)}); rivals have their authors' own"
    )


def clips_line(seed: int | None) -> str:
    """Which clips of MovingShapes the figures are of; seed None: not known."""
    if seed is None:
        return "MovingShapes, clips of a folder that does not say its seed"
    if seed in {c.seed for c in CHOICES}:
        return f"MovingShapes, seed {seed}, on which choices were made: expect a little less elsewhere"
    return f"MovingShapes, seed {seed}, on which no choice was made"


def seed_of(folder: Path) -> int | None:
    """The seed that a folder of MovingShapes was made with."""
    try:
        found = json.loads((folder / "benchmark.json").read_text())["seed"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, int) else None
