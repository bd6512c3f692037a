"""HoliTom inside the LLM: the authors' Qwen2 forward over made-up layers, up to the first layer that merges."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import torch

from ._forwards import Layer, functions, stand_in
from ._llm_prompts import prompt

CUT = 2  # before which layer
WIDTH = 16
# seed, frames, tokens of a frame, share that leaves
CASES = (
    (0, 1, 4, 0.5),
    (1, 4, 16, 0.5),
    (2, 8, 9, 0.5),
    (3, 7, 13, 0.75),
    (4, 16, 5, 0.9),
    (5, 2, 49, 0.25),
    (6, 3, 7, 0.5),
)


class Attended(Layer):
    def __call__(self, x, output_attentions=False, **kwargs):
        return self.hidden(x), self.paid(x) if output_attentions else None


def numbers(source: Path) -> dict[str, np.ndarray]:
    class Cache:  # stands in for that of transformers
        pass

    space = {
        "torch": torch,
        "Cache": Cache,
        "partial": None,
        "BaseModelOutputWithPast": lambda **found: SimpleNamespace(**found),
        "print": lambda *_: None,
    }
    (forward,) = functions(source / "holitom" / "modeling_qwen2.py", ["Qwen2Model_holitom.forward"], space)
    made = {}
    for number, (seed, frames, each, share) in enumerate(CASES):
        one = prompt(seed, frames, each, WIDTH)
        model = stand_in(
            [Attended(i) for i in range(CUT + 1)],
            _update_causal_mask=lambda *_: None,
            rotary_emb=lambda x, positions: positions,
            image_token_posi=[one.start],
            image_tokens=[one.visual],
        )
        with patch.dict(os.environ, HOLITOM_k=str(CUT), HOLITOM_r=str(share)):
            out = forward(model, inputs_embeds=torch.from_numpy(one.x.copy())[None])
        made[f"x{number}"] = out.last_hidden_state[0].numpy().astype(np.float32)
    return made
