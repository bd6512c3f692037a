"""DivPrune (vbdi/divprune): the places that `LlavaMetaForCausalLM.DivPrune` takes, in its order."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from ._cases import CLIPS, SHARES, tensors
from ._forwards import functions


def numbers(source: Path) -> dict[str, np.ndarray]:
    """By "clip share": int16 (K,)."""
    cosines, prune = functions(
        source / "LLaVA" / "llava" / "model" / "llava_arch.py",
        ["LlavaMetaForCausalLM.pairwise_cosine_similarity", "LlavaMetaForCausalLM.DivPrune"],
        {"torch": torch},
    )
    model = SimpleNamespace(pairwise_cosine_similarity=lambda x: cosines(None, x))
    made = {}
    for name in CLIPS:
        x = torch.from_numpy(tensors(name)[0]).flatten(0, 1)
        distances = None
        for share in SHARES:
            order, distances = prune(model, x, len(x), distances, threshold_ratio=share)
            made[f"{name} {share}"] = order.numpy().astype(np.int16)
    return made
