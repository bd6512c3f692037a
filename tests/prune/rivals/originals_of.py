"""The numbers that the rivals' own code gave, beside this package's plans."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from videoprune.prune.merge import apply_plan
from videoprune.types import KeepPlan

_FOLDER = Path(__file__).parent / "originals"


def originals(method: str) -> dict[str, np.ndarray]:
    """Arrays by name, as scripts/original_numbers/METHOD.py made them."""
    with np.load(_FOLDER / f"{method}.npz") as found:
        return dict(found)


def shares(plan: KeepPlan, frames: int) -> Tensor:
    """How much of each token there is in each result of a plan that keeps equally many of every frame: (T, k, n)."""
    tokens = plan.num_tokens // frames
    whole = apply_plan(torch.eye(plan.num_tokens)[None], plan)[0]  # (T * k, T * n)
    parts = whole.view(frames, -1, frames, tokens).diagonal(dim1=0, dim2=2).movedim(2, 0)
    assert torch.isclose(whole.sum(), parts.sum()), "tokens of other frames"
    return parts
