"""SparseVLM: the authors' Llama forward of the main branch, version 1.0, over 32 made-up layers."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import einops
import numpy as np
import torch

from ._forwards import Layer, functions, numbered, stand_in
from ._llm_prompts import prompt

LAYERS, WIDTH = 32, 12
LISTS = {192: (300, 200, 110), 128: (303, 110, 36), 96: (238, 48, 26), 64: (66, 30, 17)}
# seed, frames, tokens of a frame, tokens to retain (one of LISTS), tokens of the question
CASES = (
    (0, 16, 36, 192, 9),
    (1, 16, 36, 128, 21),
    (2, 16, 36, 96, 5),
    (3, 9, 64, 64, 14),
    (4, 7, 43, 192, 9),
    (5, 1, 67, 64, 3),
)


class Cache:
    """Stands in for that of transformers."""

    def get_usable_length(self, length: int) -> int:
        return 0

    def to_legacy_cache(self) -> None:
        return None


class Asked(Layer):
    def __call__(self, hidden_states, **kwargs):
        """Outputs as with a cache: hidden states, the cache, attention of all tokens."""
        attention = self.paid(hidden_states) if self.index in (2, 6, 15) else None
        return self.hidden(hidden_states), Cache(), attention


def numbers(source: Path) -> dict[str, np.ndarray]:
    folder = source / "llava" / "model" / "language_model"
    event = SimpleNamespace(record=lambda: None, elapsed_time=lambda _: 0.0)
    cuda = SimpleNamespace(Event=lambda **_: event, synchronize=lambda: None)
    space = {
        "torch": torch,
        "ein": einops,
        "math": math,
        "V2_0": False,
        "layer_dict": {2: 0, 6: 1, 15: 2},
        "loggerinfo": SimpleNamespace(info=lambda _: None),
        "prefix": "",
        "Cache": Cache,
        "DynamicCache": SimpleNamespace(from_legacy_cache=lambda _: Cache()),
        "BaseModelOutputWithPast": lambda **found: SimpleNamespace(**found),
        "_prepare_4d_causal_attention_mask": lambda *_: None,
    }
    functions(folder / "utils.py", ["batch_index_select", "index_points", "cluster_and_merge"], space)
    functions(folder / "score.py", ["attn_postprocess_topk"], space)
    (forward,) = functions(folder / "modelling_sparse_llama.py", ["LlamaDynamicvitModel.forward"], space)
    made = {}
    for number, (seed, frames, each, retained, behind) in enumerate(CASES):
        space |= {"RETAIN_TOKN": retained, "sparse_token_dict": LISTS}
        one = prompt(seed, frames, each, WIDTH, behind=behind)
        layers = [Asked(i) for i in range(LAYERS)]
        model = stand_in(
            layers,
            use_cache=True,
            _use_flash_attention_2=False,
            _use_sdpa=False,
            init_token_total_shape=len(one.x),
            generate_process_count=0,
            pruning_loc=[2, 6, 15],
            all_FLOPs=0,
            total_cuda_time=0,
            num_forward=0,
            num_token_pool=0,
            num_layers=LAYERS,
        )
        # The noise that breaks ties of the density (tokens that are each other's nearest have one) falls so that the
        # earlier token is the denser one.
        noise = patch.object(torch, "rand", lambda shape, **_: torch.linspace(1, 0, shape[1]).expand(shape))
        with patch.object(torch, "cuda", cuda), noise:
            out = forward(
                model,
                inputs_embeds=torch.from_numpy(one.x.copy())[None],
                image_shape=one.visual,
                pre_prompt_length_list=[one.start],
            )[2]
        x = out.last_hidden_state[0].numpy().astype(np.float32)
        made[f"x{number}"], made[f"left{number}"] = x, numbered([len(x) - one.start - behind])
    return made
