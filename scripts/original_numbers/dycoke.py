"""DyCoke: the authors' token temporal merging (dycole_ttm)."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import inputs

WIDTH = 8
# frames, tokens of a frame, share that leaves the thinned frames; the program takes six frames or more, an even number
CASES = (
    (6, 4, 0.5),
    (6, 9, 0.7),
    (8, 16, 0.7),
    (8, 16, 0.9),
    (8, 15, 1.0),
    (10, 25, 0.5),
    (12, 49, 0.7),
    (16, 49, 0.9),
    (32, 196, 0.7),
    (32, 196, 0.3),
    (14, 5, 0.6),
)


def tokens(case: int) -> np.ndarray[Any, Any]:
    """(T, n, D)."""
    frames, n, _ = CASES[case]
    return inputs.clip(case, frames, n, WIDTH, shots=3)


def numbers(source: Path) -> dict[str, np.ndarray[Any, Any]]:
    path = source / "llava" / "model" / "llava_arch.py"
    tree = ast.parse(path.read_text())
    kept = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "dycole_ttm"]
    space: dict[str, Any] = {"torch": torch}
    exec(compile(ast.Module(kept, []), str(path), "exec"), space)  # the authors' code, as they wrote it
    found = {}
    for case, (_, n, ratio) in enumerate(CASES):
        x = torch.from_numpy(tokens(case)).flatten(0, 1)
        left = space["dycole_ttm"](x, n, ratio)
        place = (left[:, None] == x[None]).all(2).int().argmax(1)
        found[f"kept_{case}"] = place.sort().values.numpy().astype(np.int16)
    return found
