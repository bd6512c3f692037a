"""EarlyTom: the authors' merging of frames at three blocks (SigLipEncoder.compression), then the selection in space."""

from __future__ import annotations

import ast
import math
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from . import inputs

WIDTH = 8
# frames, tokens of a frame, share that stays, tau, how still the clip is, shots
CASES = (
    (1, 16, 0.5, 0.5, 0.7, 1),
    (2, 9, 0.25, 0.5, 0.7, 1),
    (3, 9, 0.5, 0.5, 0.7, 1),
    (4, 16, 0.25, 0.5, 0.9, 1),
    (5, 9, 0.5, 0.3, 0.8, 1),
    (7, 25, 0.25, 0.5, 0.8, 2),
    (8, 16, 0.25, 0.5, 0.8, 1),
    (8, 16, 0.1, 0.3, 0.6, 2),
    (16, 49, 0.25, 0.7, 0.8, 3),
    (16, 15, 0.1, 0.3, 0.7, 2),
    (32, 196, 0.1, 0.3, 0.7, 4),
    (32, 196, 0.25, 0.5, 0.85, 2),
    (32, 49, 0.5, 0.7, 0.75, 5),
    (12, 4, 0.5, 0.5, 0.9, 1),
)


def between(case: int) -> np.ndarray[Any, Any]:
    """What stands for the blocks between two mergings: (2, D, D), near the identity."""
    rng = np.random.default_rng([case, 11])
    return (np.eye(WIDTH) + 0.3 * rng.standard_normal((2, WIDTH, WIDTH))).astype(np.float32)


def tokens(case: int) -> np.ndarray[Any, Any]:
    """(T, n, D)."""
    frames, n, _, _, still, shots = CASES[case]
    return inputs.clip(case, frames, n, WIDTH, still=still, shots=shots)


def attention(case: int, frames: int) -> np.ndarray[Any, Any]:
    """(frames, n) of those that arrive at the last merging."""
    return inputs.attention(case, frames, CASES[case][1])


def wanted(case: int) -> int:
    frames, n, share, *_ = CASES[case]
    return max(frames, round(share * frames * n))


def _methods(path: Path, name: str) -> dict[str, Any]:
    """The functions of class `name` in a file, without importing what the file imports."""
    tree = ast.parse(path.read_text())
    found = next(n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == name)
    kept = [n for n in found.body if isinstance(n, ast.FunctionDef) and n.name not in ("__init__", "forward")]
    kept = [n for n in kept if n.name != "prepare_inputs_labels_for_multimodal"]
    space: dict[str, Any] = {"torch": torch, "F": F, "math": math, "os": os, "Optional": Any}
    exec(compile(ast.Module(kept, []), str(path), "exec"), space)  # the authors' code, as they wrote it
    return {n.name: space[n.name] for n in kept}


def _bound(methods: dict[str, Any], **fields: Any) -> Any:
    owner = SimpleNamespace(**fields)
    for name, function in methods.items():
        setattr(owner, name, function.__get__(owner))
    return owner


def numbers(source: Path) -> dict[str, np.ndarray[Any, Any]]:
    siglip = source / "LLaVA-NeXT" / "llava" / "model" / "multimodal_encoder" / "siglip_encoder.py"
    encoder = _methods(siglip, "SigLipEncoder")
    model = _bound(_methods(source / "earlytom" / "llava_arch.py", "LlavaMetaForCausalLM_earlytom"))
    found: dict[str, np.ndarray[Any, Any]] = {}
    for case, (frames, n, _, tau, _, _) in enumerate(CASES):
        program = _bound(encoder, ema=0.9, mode="mixing", max_window=6)
        x, mix = torch.from_numpy(tokens(case)), torch.from_numpy(between(case))
        left = []
        for step in range(3):
            received = torch.from_numpy(attention(case, len(x)))[:, None, None]  # as [T, H, S, S]
            x, received, groups = program.compression(x, received, tau, last_layer=step == 2)
            left.append(len(x))
            if step < 2:
                x = x @ mix[step]
        received = received.mean(dim=(1, 2))
        number = torch.arange(len(x) * n).view(len(x), n, 1).double()
        share = min(wanted(case) / (frames * n) / (len(x) / frames), 1)
        parts = model.divided_static_dynamic(number, received, groups)
        kept = []
        for i, (start, end) in enumerate(groups):
            static, static_attn, static_pos, dynamic, dynamic_attn, dynamic_pos = (p[i] for p in parts)
            kept.append(
                model.spatial_compression(
                    *(static, static_attn, dynamic, dynamic_attn, static_pos, dynamic_pos),
                    *(end - start + 1, share, 0.0, 0.6, 7, torch.float64, "one_token"),
                )
            )
        found[f"left_{case}"] = np.array(left)
        found[f"frames_{case}"] = x.mean(1).numpy()
        found[f"attention_{case}"] = received.mean(1, dtype=torch.float64).numpy().astype(np.float32)
        found[f"groups_{case}"] = np.array(groups)
        found[f"kept_{case}"] = torch.cat(kept).flatten().numpy().astype(np.int16)
    return found
