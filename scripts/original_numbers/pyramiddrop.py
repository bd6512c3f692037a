"""PyramidDrop (Cooperx521/PyramidDrop): the authors' Llama forward over 32 made-up layers, all three stages."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ._forwards import Layer, functions, numbered, stand_in
from ._llm_prompts import mixes, prompt

LAYERS, WIDTH, HEADS = 32, 8, 3
LIST, SHARES = (8, 16, 24), (0.5, 0.25, 0.125)
# seed, frames, tokens of a frame, tokens of the question
CASES = (
    (0, 1, 49, 9),
    (1, 4, 10, 3),
    (2, 8, 49, 1),
    (3, 5, 13, 14),
    (4, 32, 4, 9),
    (5, 3, 7, 5),
    (6, 2, 196, 9),
)


class Ranked(Layer):
    """Its queries and keys give the attention of the made-up prompts."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.arrived = 0
        mix = torch.from_numpy(mixes(index, WIDTH, HEADS))
        self.input_layernorm = lambda x: x
        self.self_attn = SimpleNamespace(
            num_heads=HEADS,
            num_key_value_heads=HEADS,
            head_dim=WIDTH,
            q_proj=lambda x: torch.einsum("bnw,hwv->bnhv", x, mix).flatten(2) * WIDTH**0.5,
            k_proj=lambda x: x.repeat(1, 1, HEADS),
            v_proj=lambda x: x.repeat(1, 1, HEADS),
            rotary_emb=lambda x, seq_len: (torch.ones(seq_len, WIDTH), torch.zeros(seq_len, WIDTH)),
        )

    def __call__(self, x: Tensor, **_: Any) -> tuple[Tensor]:
        self.arrived = x.shape[1]
        return (self.hidden(x),)


def causal(mask: Tensor | None, size: tuple[int, int], *_: Any, **__: Any) -> Tensor:
    """Stands in for that of transformers, without padding."""
    least = torch.finfo(torch.float32).min
    return torch.full((size[1], size[1]), least).triu(1).expand(size[0], 1, -1, -1)


def numbers(source: Path) -> dict[str, np.ndarray]:
    """By number of the case: places that are left at the end, int64 (K,), what they are, (K, W), and how many visual
    tokens go into each layer, int64 (32,)."""
    space = {
        "torch": torch,
        "nn": nn,
        "math": math,
        "IGNORE_INDEX": -100,
        "_prepare_4d_causal_attention_mask": causal,
        "BaseModelOutputWithPast": lambda **found: SimpleNamespace(**found),
    }
    forward, drop, *_ = functions(
        source / "llava" / "model" / "modeling_llama_pdrop.py",
        ["LlamaModel.pdrop_forward", "LlamaModel.pdrop_rank_drop", "apply_rotary_pos_emb", "rotate_half"],
        space,
    )
    made = {}
    for number, (seed, frames, each, behind) in enumerate(CASES):
        one = prompt(seed, frames, each, WIDTH, behind=behind)
        layers = [Ranked(i) for i in range(LAYERS)]
        model = stand_in(
            layers,
            _use_flash_attention_2=True,
            layer_list=list(LIST),
            image_token_ratio_list=[1.0, *SHARES],
            image_tokens=[one.visual],
            image_token_posi=[one.start],
            prompt_len=[one.start + behind],
        )
        model.pdrop_rank_drop = lambda model=model, **given: drop(model, **given)
        found, at = forward(
            model, inputs_embeds=torch.from_numpy(one.x)[None], labels=torch.arange(len(one.x))[None]
        )
        made[f"at{number}"] = at[0].numpy()
        made[f"x{number}"] = found.last_hidden_state[0].numpy().astype(np.float32)
        made[f"counts{number}"] = numbered([layer.arrived - one.start - behind for layer in layers])
    return made
