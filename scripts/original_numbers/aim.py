"""AIM: what rounds of `bipartite_soft_matching_merge` make of each token (llava/model/token_merge.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from . import inputs
from ._segments import definitions

# frames, tokens of a frame, width, tokens that each round takes away
CASES = [
    (1, 4, 6, (2, 1)),
    (1, 196, 12, (98, 49)),
    (2, 169, 12, (84, 42)),
    (8, 196, 16, (98,)),
    (8, 169, 16, (84,)),
    (8, 169, 16, (84, 42, 21, 2)),
    (8, 196, 16, (98, 49, 24, 5)),
    (3, 35, 7, (17, 8)),
    (3, 49, 9, (20,)),
    (17, 13, 6, (6, 3)),
    (32, 16, 8, (8, 4)),
    (32, 16, 8, (8, 4, 2)),
]


def tokens_of(frames: int, tokens: int, width: int) -> inputs.Array:
    return inputs.clip(7, frames, tokens, width, shots=min(frames, 3))


def numbers(source: Path) -> dict[str, np.ndarray]:
    """By number of the case, for each token: the first token of its group, int16 (T, n), and what it counts there."""
    name = "bipartite_soft_matching_merge"
    path = source / "llava" / "model" / "token_merge.py"
    merge = definitions(path, (name,), {"torch": torch})[name]
    found = {}
    for i, (frames, tokens, width, rounds) in enumerate(CASES):
        x = torch.from_numpy(tokens_of(frames, tokens, width))
        shares = torch.eye(tokens).expand(frames, -1, -1)
        for r in rounds:
            # Rows of the identity merge along: how much of each token there is in each result.
            shares, x = merge(x, r, shares), merge(x, r, x)
        found[f"{i} group"], found[f"{i} weight"] = inputs.groups(shares.numpy())
    return found
