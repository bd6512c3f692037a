"""VisionZip: what `CLIPVisionTower_VisionZip.forward` makes of each token (visionzip/clip_encoder.py)."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

from . import inputs
from ._segments import definitions

# frames, tokens of a frame, width of keys, dominant and contextual tokens of a frame
CASES = [
    (1, 4, 5, 1, 1),
    (1, 576, 8, 53, 10),
    (2, 49, 8, 21, 4),
    (2, 49, 8, 10, 2),
    (2, 49, 8, 4, 1),
    (3, 35, 7, 15, 3),
    (3, 35, 7, 3, 9),
    (8, 196, 16, 83, 15),
    (8, 196, 16, 41, 8),
    (8, 196, 16, 17, 3),
    (17, 13, 6, 5, 2),
    (32, 16, 6, 3, 1),
]


def attention_and_keys(frames: int, tokens: int, width: int) -> tuple[inputs.Array, inputs.Array]:
    return inputs.attention(5, frames, tokens), inputs.keys(5, frames, tokens, width)


def numbers(source: Path) -> dict[str, np.ndarray]:
    """By number of the case, for each token: the first token of its group (-1: in none), int16 (T, n), and what it
    counts there, float32 (T, n)."""
    path = source / "visionzip" / "clip_encoder.py"
    tower = definitions(path, ("CLIPVisionTower_VisionZip",), {"torch": torch, "nn": nn})
    forward = tower["CLIPVisionTower_VisionZip"].forward
    found = {}
    for i, (frames, tokens, width, dominant, contextual) in enumerate(CASES):
        made, _ = forward(_Model(frames, tokens, width, dominant, contextual), torch.zeros(frames, 1))
        group, weight = inputs.groups(made[:, 1:, 1:].numpy())  # without CLS
        found[f"{i} group"], found[f"{i} weight"] = group, weight
    return found


class _Model:
    """What their forward asks of the model. The choice looks at attention and keys alone: hidden states that are
    rows of the identity show how much of each token there is in each result."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, frames: int, tokens: int, width: int, dominant: int, contextual: int) -> None:
        attention, keys = (torch.from_numpy(a) for a in attention_and_keys(frames, tokens, width))
        seen = torch.zeros(frames, 2, tokens + 1, tokens + 1)
        seen[:, :, 0, 1:] = attention[:, None] / tokens * torch.tensor([0.5, 1.5])[:, None]  # two heads
        front = torch.ones(frames, 1, width)
        self.states = (seen, torch.eye(tokens + 1).expand(frames, -1, -1))
        layer = SimpleNamespace(metric=torch.cat((front, keys), 1))
        self.vision_tower = _Tower(self.states, layer, {"dominant": dominant, "contextual": contextual})


class _Tower:
    def __init__(self, states: tuple[Tensor, Tensor], layer: SimpleNamespace, info: dict[str, int]) -> None:
        self.states, self._info = states, info
        self.vision_model = SimpleNamespace(encoder=SimpleNamespace(layers=[layer, layer]))

    def __call__(self, images: Tensor, **_: bool) -> SimpleNamespace:
        attention, hidden = self.states
        return SimpleNamespace(attentions=(attention, attention), hidden_states=(hidden, hidden))
