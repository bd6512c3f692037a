"""AIM inside the LLM (LaVi-Lab/AIM): what `get_importance` makes of seeded queries and keys, and what the authors'
Qwen2 forward leaves of a prompt of which every layer thinks alike but for its queries and keys."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from . import inputs
from ._forwards import functions, numbered, stand_in

LAYERS, START, BEHIND, CUT = 28, 5, 9, 15
# frames, tokens of a frame, heads, heads of keys, width of a head
CASES = (
    (1, 16, 1, 1, 4),
    (1, 49, 4, 4, 8),
    (4, 10, 4, 2, 8),
    (8, 24, 6, 2, 16),
    (5, 13, 3, 1, 6),
    (32, 4, 4, 2, 12),
    (3, 7, 8, 8, 4),
    (2, 98, 2, 1, 8),
)


def queries_and_keys(number: int, layer: int) -> tuple[Tensor, Tensor]:
    """q (1, H, S, d), k (1, Hk, S, d) of case `number`: logits of about 1."""
    frames, each, heads, groups, width = CASES[number]
    tokens = START + frames * each + BEHIND
    drawn = (inputs.keys(100 * number + layer + s, n, tokens, width) for s, n in ((0, heads), (50, groups)))
    q, k = (torch.from_numpy(a)[None] for a in drawn)
    return q, k


def logits(number: int, layer: int, stays: Tensor) -> Tensor:
    """(1, H, S, S), as the authors' attention has them: causal, and least for keys that left. stays: bool (1, S)."""
    q, k = queries_and_keys(number, layer)
    scores = q @ k.repeat_interleave(q.shape[1] // k.shape[1], 1).transpose(2, 3) / q.shape[3] ** 0.5
    least = torch.finfo(torch.float32).min
    return scores.masked_fill(~(torch.ones(scores.shape[-2:]).tril().bool() & stays[:, None, None]), least)


def numbers(source: Path) -> dict[str, np.ndarray]:
    """By number of the case: scores of layer 14 over all tokens, float32 (S,); places left behind it, and how many
    visual tokens go into each layer, int64 (28,)."""
    folder = source / "other_packages" / "transformers" / "src" / "transformers" / "models" / "qwen2"
    space = {
        "torch": torch,
        "nn": nn,
        "BaseModelOutputWithPast": lambda **found: SimpleNamespace(**found),
    }
    importance, forward = functions(
        folder / "modeling_qwen2.py", ["get_importance", "Qwen2Model.forward"], space
    )
    made = {}
    for number, (frames, each, *_) in enumerate(CASES):
        visual = frames * each
        ends = [START, START + visual, START + visual + BEHIND]
        everything = torch.ones(1, ends[2], dtype=torch.bool)
        made[f"scores{number}"] = importance(logits(number, CUT - 1, everything))[0].numpy()
        model = _model(number, importance)
        forward(
            model,
            inputs_embeds=torch.zeros(1, ends[2], 1),
            attention_mask=everything,
            boundaries=[ends],
        )
        left = [everything, *model.attention_mask_cache[1:-1]]
        made[f"at{number}"] = left[CUT][0].nonzero()[:, 0].numpy()
        made[f"counts{number}"] = numbered([int(m[0, ends[0] : ends[1]].sum()) for m in left])
    return made


def _model(number: int, importance: Any) -> SimpleNamespace:
    def layer(index: int) -> Any:
        return lambda x, attention_mask, **_: (x, importance(logits(number, index, attention_mask)))

    return stand_in(
        [layer(i) for i in range(LAYERS)],
        _update_causal_mask=lambda mask, *_: mask,  # the layers here ask which keys are left
    )
