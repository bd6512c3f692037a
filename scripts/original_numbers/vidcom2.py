"""VidCom2: the places that `vidcom2_compression` keeps (token_compressor/vidcom2/vidcom2.py)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch

from . import inputs

# frames, tokens of a frame, width, share
CASES = [
    (frames, tokens, width, share)
    for frames, tokens, width in [
        (1, 4, 6),
        (2, 9, 8),
        (3, 49, 17),
        (5, 13, 10),
        (8, 16, 32),
        (8, 196, 24),
        (16, 169, 16),
        (17, 35, 7),
        (32, 64, 12),
    ]
    for share in (0.5, 0.25, 0.1)
]


def tokens_of(frames: int, tokens: int, width: int) -> inputs.Array:
    return inputs.clip(3, frames, tokens, width, shots=min(frames, 3))


def numbers(source: Path) -> dict[str, np.ndarray]:
    """Kept places, int16 (K,), by number of the case."""
    path = source / "token_compressor" / "vidcom2" / "vidcom2.py"
    spec = importlib.util.spec_from_file_location("their_vidcom2", path)
    assert spec is not None
    assert spec.loader is not None
    theirs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs)
    found = {}
    for i, (frames, tokens, width, share) in enumerate(CASES):
        x = torch.from_numpy(tokens_of(frames, tokens, width)).flatten(0, 1)
        # What it returns are tokens: no two are alike, so they tell their places.
        place = {row.numpy().tobytes(): j for j, row in enumerate(x)}
        share = max(1, round(share * len(x))) / len(x)
        kept = theirs.vidcom2_compression(x, "qwen2_vl", base_scale=share, frame_token_len=tokens)
        found[str(i)] = np.array([place[row.numpy().tobytes()] for row in kept], np.int16)
    return found
