"""Names of the folders that a run's figures go to."""

from __future__ import annotations

import pytest

from pipelines.run.tasks import moving_shapes_label
from videoprune.eval.benchmarks.moving_shapes.splits import split_named


@pytest.mark.parametrize(
    ("split", "data", "seed", "label"),
    [
        ("standard", None, 0, ""),
        ("standard", None, 2, "seed2-"),
        ("hard", None, 0, "hard-"),
        ("hard", None, 2, "hard-seed2-"),
        ("hard", "given", 2, "hard-"),  # where the clips are given, the seed makes none
    ],
)
def test_clips_of_another_seed_have_a_folder_of_their_own(
    split: str, data: str | None, seed: int, label: str
) -> None:
    assert moving_shapes_label(split_named(split), data, seed) == label
