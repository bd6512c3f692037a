"""FastV (pkunlp-icler/FastV): the authors' two Llama forwards over made-up layers, up to the layer behind the cut.

One is the form for Hugging Face's LLaVA, the other the one of the paper, with its tokens dropped in place.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._forwards import Layer, functions, stand_in
from ._llm_prompts import Prompt, prompt

CUT, WIDTH = 2, 8  # before which layer
# seed, frames, tokens of a frame, share that leaves
CASES = (
    (0, 1, 4, 0.5),
    (1, 4, 10, 0.75),
    (2, 8, 49, 0.5),
    (3, 5, 13, 0.9),
    (4, 32, 4, 0.5),
    (5, 3, 7, 0.75),
    (6, 2, 196, 0.9),
)
_MODELING = "transformers/src/transformers/models/llama/modeling_llama.py"


class Attended(Layer):
    """Hands back its attention, and keeps the positions that it was given."""

    def __call__(self, x: Tensor, **given: Any) -> tuple[Tensor, Tensor]:
        self.positions = given["position_ids"][0]
        return self.hidden(x), self.paid(x)


def numbers(source: Path) -> dict[str, np.ndarray]:
    """By number of the case: places that are left, int64 (K,), and what layer CUT makes of them, (K, W)."""

    class StaticCache:  # stands in for that of transformers
        pass

    space = {
        "torch": torch,
        "StaticCache": StaticCache,
        "BaseModelOutputWithPast": lambda **found: SimpleNamespace(**found),
    }
    hugging = functions(
        source / "src" / "FastV" / "llava-hf" / _MODELING, ["LlamaModel.fastv_forward"], space
    )
    paper = functions(source / "src" / _MODELING, ["LlamaModel.forward"], space)
    made = {}
    for number, (seed, frames, each, leaves) in enumerate(CASES):
        one = prompt(seed, frames, each, WIDTH)
        at, x = _hugging(hugging[0], one, leaves)
        same, _ = _paper(paper[0], one, round(one.visual * (1 - leaves)))
        assert torch.equal(at, same), "the authors' two forwards differ"
        made[f"at{number}"], made[f"x{number}"] = at.numpy(), x[0].numpy().astype(np.float32)
    return made


def _hugging(forward: Callable[..., Any], one: Prompt, leaves: float) -> tuple[Tensor, Tensor]:
    settings = {"image_token_start_index": one.start, "image_token_length": one.visual}
    model = _model(_update_causal_mask=lambda *_: None, device=torch.device("cpu"))
    found = forward(
        model,
        inputs_embeds=torch.from_numpy(one.x)[None],
        fastv_config={"fastv_k": CUT, "fastv_r": leaves, **settings},
    )
    return model.layers[CUT].positions, found.last_hidden_state


def _paper(forward: Callable[..., Any], one: Prompt, stays: int) -> tuple[Tensor, Tensor]:
    model = _model(
        _prepare_decoder_attention_mask=lambda *_: None,
        use_fast_v=True,
        fast_v_inplace=True,
        fast_v_sys_length=one.start,
        fast_v_image_token_length=one.visual,
        fast_v_attention_rank=stays,
        fast_v_agg_layer=CUT,
    )
    found = forward(model, inputs_embeds=torch.from_numpy(one.x)[None], output_attentions=True)
    return model.layers[CUT].positions, found.last_hidden_state


def _model(**more: Any) -> SimpleNamespace:
    return stand_in([Attended(i) for i in range(CUT + 1)], **more)
