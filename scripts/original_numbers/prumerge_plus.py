"""PruMerge+: what `token_prune_merge_advanced_plus` makes of a frame.

It is in llava/model/multimodal_encoder/clip_encoder.py.
"""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import inputs
from ._segments import definitions

# tokens of a frame, width of keys, how many are the most attended: None: the outliers
CASES = [
    (576, 16, None),
    (576, 16, 14),
    (576, 16, 36),
    (576, 16, 72),
    (196, 8, None),
    (196, 8, 12),
    (169, 8, 23),
    (49, 6, 3),
    (35, 7, 11),
]
WIDTH = 3
_METHOD = "token_prune_merge_advanced_plus"


def queries_and_keys(tokens: int, width: int) -> tuple[inputs.Array, inputs.Array]:
    """The query of CLS (d,), and keys (n, d), without CLS."""
    keys = inputs.keys(11, 1, tokens, width)[0]
    return 2 * inputs.keys(12, 1, tokens, width)[0, 0], keys


def values(tokens: int) -> inputs.Array:
    """Tokens of a frame, (n, 3)."""
    return inputs.clip(13, 1, tokens, WIDTH, shots=1)[0]


def numbers(source: Path) -> dict[str, np.ndarray]:
    """By number of the case: places of the tokens that stay, int16 (k,), ascending, and what they and the further
    token, the last row, have become, float32 (k + 1, 3)."""
    found = {}
    for i, (tokens, width, most_attended) in enumerate(CASES):
        made = (
            _run(source, tokens, width, most_attended).double().numpy()
        )  # (k + 1, n): how much of each token
        own = made[:-1].argmax(1)
        assert (made[:-1].max(1) >= 1).all()
        order = own.argsort()
        found[f"{i} places"] = own[order].astype(np.int16)
        rows = made[[*order, len(order)]]
        found[f"{i} values"] = (rows @ values(tokens)).astype(np.float32)
    return found


def _run(source: Path, tokens: int, width: int, most_attended: int | None) -> Tensor:
    """Their method on tokens that are rows of the identity, on which the choice does not look."""
    path = source / "llava" / "model" / "multimodal_encoder" / "clip_encoder.py"
    query, keys = (torch.from_numpy(a) for a in queries_and_keys(tokens, width))
    # CLS does not look at itself, so the attention of the others adds up to 1.
    k = torch.cat((-50 * query / query.norm(), keys.flatten()), 0).view(tokens + 1, width)
    q = torch.cat((query[None], torch.zeros(tokens, width)))
    # Keys are as wide as tokens there, which are `tokens` wide here; attention divides by the root of that.
    q, k = (F.pad(part, (0, tokens - width))[None] for part in (q * (tokens / width) ** 0.5, k))
    made: dict[str, Any] = {"desired_k": k, "desired_q": q}
    wanted = ("outlier_dectection", "complement_idx", "hook_k", "hook_q", "CLIPVisionTower")
    given = {"torch": torch, "F": F, "nn": nn, "np": np, "outputs": made}
    their = definitions(path, wanted, given, lambda tree: _other_counts(tree, tokens))
    method = getattr(their["CLIPVisionTower"], _METHOD)
    if most_attended is not None:
        method.__globals__["outlier_dectection"] = lambda _: most_attended / tokens
    return method(_model(tokens), torch.zeros(1, 1))[0]


def _other_counts(tree: ast.Module, tokens: int) -> ast.Module:
    """Their 575, one less than the tokens of CLIP's frame, for other frames."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value == 575:
            node.value = tokens - 1
    return tree


def _model(tokens: int) -> SimpleNamespace:
    """What their method asks of the model."""
    hook = SimpleNamespace(remove=lambda: None)
    part = SimpleNamespace(register_forward_hook=lambda _: hook)
    attention = SimpleNamespace(k_proj=part, q_proj=part)
    layers = [SimpleNamespace(self_attn=attention)] * 24
    hidden = torch.cat((torch.zeros(1, 1, tokens), torch.eye(tokens)[None]), 1)
    tower = _Tower(layers, hidden)
    return SimpleNamespace(
        vision_tower=tower,
        device=torch.device("cpu"),
        dtype=torch.float32,
        select_layer=-2,
        feature_select=lambda out: out.hidden_states[-2][:, 1:],
    )


class _Tower:
    def __init__(self, layers: list[SimpleNamespace], hidden: Tensor) -> None:
        self.vision_model = SimpleNamespace(encoder=SimpleNamespace(layers=layers))
        self.hidden = hidden

    def __call__(self, images: Tensor, **_: bool) -> SimpleNamespace:
        return SimpleNamespace(hidden_states=(self.hidden, self.hidden))
