"""FlashVID inside the LLM: what the authors' `fastv_prune` keeps of seeded hidden states and attention."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from ._forwards import functions
from ._llm_prompts import attention, prompt

LAYER, WIDTH, RATIO = 19, 8, 0.3
# seed, frames, tokens of a frame
CASES = ((0, 1, 4), (1, 4, 10), (2, 8, 49), (3, 5, 13), (4, 32, 4), (5, 3, 7))


def numbers(source: Path) -> dict[str, np.ndarray]:
    space = {"torch": torch, "math": math}
    functions(source / "flashvid" / "token_selection.py", ["attn_based_token_selection"], space)
    (prune,) = functions(source / "flashvid" / "utils.py", ["fastv_prune"], space)
    made = {}
    for number, (seed, frames, each) in enumerate(CASES):
        one = prompt(seed, frames, each, WIDTH)
        given = SimpleNamespace(
            visual_token_start_index=one.start, visual_token_length=one.visual, llm_retention_ratio=RATIO
        )
        rows = torch.zeros(1, len(one.x), 2)
        *_, kept = prune(
            hidden_states=torch.from_numpy(one.x)[None],
            causal_mask=None,
            attentions=torch.from_numpy(attention(one.x, LAYER, slice(None)))[None],
            cache_position=None,
            position_ids=None,
            position_embeddings=(rows, rows),
            flashvid_config=given,
        )
        made[f"kept{number}"] = kept.numpy()
    return made
