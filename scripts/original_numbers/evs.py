"""EVS in vLLM: `compute_retention_mask` of vllm/multimodal/evs.py (vllm-project/vllm, commit 094f11782328).

It needs that one file alone: --source may be a folder that holds it at its path, with --commit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Union

import numpy as np
import torch

from ._cases import CLIPS, SHARES, tensors
from ._segments import definitions


def numbers(source: Path) -> dict[str, np.ndarray]:
    """By "clip share": the kept places, int16 (K,)."""
    names = ("compute_retained_tokens_count", "compute_retention_mask")
    space = {"torch": torch, "Union": Union}
    mask = definitions(source / "vllm" / "multimodal" / "evs.py", names, space)["compute_retention_mask"]
    made = {}
    for name, (frames, tokens, *_) in CLIPS.items():
        x = torch.from_numpy(tensors(name)[0]).flatten(0, 1)
        for merge, share in enumerate(SHARES, start=1):  # its merge of patches undoes that of the size given
            kept = mask(x, (frames, merge, tokens * merge), merge, 1 - share)
            made[f"{name} {share}"] = kept.nonzero()[:, 0].numpy().astype(np.int16)
    return made
