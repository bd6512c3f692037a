"""FrameFusion: the authors' module over 28 made-up layers, asked before each of them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ._forwards import Layer, numbered
from ._llm_prompts import attention, prompt

LAYERS, WIDTH = 28, 12
# seed, frames, tokens of a frame, share of a token that stays from frame to frame, budget
CASES = (
    (0, 8, 16, 0.5, 0.3),
    (1, 16, 9, 0.5, 0.5),
    (1, 32, 4, 0.45, 0.3),
    (2, 16, 20, 0.45, 0.3),
    (2, 32, 4, 0.9, 0.25),
    (3, 4, 49, 0.55, 0.3),
    (4, 5, 13, 0.62, 0.1),
    (5, 1, 25, 0.5, 0.5),
    (6, 12, 30, 0.58, 0.2),
    (7, 2, 196, 0.65, 0.4),
)


def numbers(source: Path) -> dict[str, np.ndarray]:
    path = source / "framefusion" / "main.py"
    spec = importlib.util.spec_from_file_location("framefusion_main", path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = {}
    for number, (seed, frames, each, still, cost) in enumerate(CASES):
        one = prompt(seed, frames, each, WIDTH, still=still)
        kinds = [-1] * one.start + [*range(each)] * frames + [-1] * (len(one.x) - one.end)
        fusion = module.FrameFusion(cost=cost)
        fusion.prepare(
            torch.tensor([kinds]), each, one.start, one.end - 1, one.visual, original_length=len(one.x)
        )
        x, at, counts, paid = torch.from_numpy(one.x.copy())[None], torch.arange(len(one.x))[None], [], None
        for layer in range(LAYERS):
            rows = [at.float()[..., None]] * 2
            x, rows, _ = fusion(x, rows, None, paid)
            at = rows[0][..., 0].long()
            counts.append(x.shape[1] - len(one.x) + one.visual)
            paid = torch.from_numpy(attention(x[0].numpy(), layer, slice(-1, None)))[None]
            x = Layer(layer).hidden(x)
        made |= {f"counts{number}": numbered(counts), f"at{number}": at[0].numpy()}
        made[f"x{number}"] = x[0].numpy().astype(np.float32)
    return made
