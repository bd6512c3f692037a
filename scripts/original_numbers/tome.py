"""ToMe: the authors' blocks (tome.patch.timm), attention and merging, on blocks without MLP and norm.

Between its attention and its MLP the program merges; without an MLP that is behind the block, where merging is here.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from . import inputs

WIDTH, HEADS = 16, 2
# frames, tokens of a frame, tokens in front (CLS), blocks, r
CASES = (
    (1, 4, 0, 2, 1),
    (3, 16, 0, 4, 3),
    (3, 16, 1, 4, 3),
    (2, 49, 1, 6, 6),
    (2, 49, 0, 6, 6),
    (4, 81, 0, 8, 9),
    (1, 196, 1, 12, 14),
    (1, 196, 0, 12, 16),
    (8, 36, 1, 3, 12),
    (2, 15, 1, 5, 3),
)


def weights(case: int, blocks: int) -> np.ndarray[Any, Any]:
    """Of queries, keys, values and output of each block: (blocks, 4, D, D)."""
    rng = np.random.default_rng([case, blocks, 7])
    return (0.6 * rng.standard_normal((blocks, 4, WIDTH, WIDTH)) / WIDTH**0.5).astype(np.float32)


def tokens(case: int) -> np.ndarray[Any, Any]:
    """(T, prefix + n, D)."""
    frames, n, prefix, _, _ = CASES[case]
    return inputs.clip(case, frames, n + prefix, WIDTH)


class _Attention(nn.Module):
    """What the authors' attention takes of timm's."""

    def __init__(self, w: torch.Tensor) -> None:
        super().__init__()
        self.num_heads, self.scale = HEADS, (WIDTH // HEADS) ** -0.5
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.qkv.weight.data, self.proj.weight.data = w[:3].flatten(0, 1), w[3]
        self.attn_drop = self.proj_drop = nn.Identity()


class _Block(nn.Module):
    def __init__(self, w: torch.Tensor) -> None:
        super().__init__()
        self.attn = _Attention(w)
        self.norm1 = self.norm2 = self.drop_path = nn.Identity()
        self.mlp = torch.zeros_like


def _program(source: Path) -> Any:
    timm = types.ModuleType("timm.models.vision_transformer")
    timm.Attention, timm.Block, timm.VisionTransformer = _Attention, _Block, nn.Module  # type: ignore[attr-defined]
    for name in ("timm", "timm.models"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["timm.models.vision_transformer"] = timm
    package = types.ModuleType("tome")
    package.__path__ = [str(source / "tome")]  # without what its __init__ imports
    sys.modules["tome"] = package
    package = types.ModuleType("tome.patch")
    package.__path__ = [str(source / "tome" / "patch")]
    sys.modules["tome.patch"] = package
    import tome.patch.timm as program  # type: ignore[import-not-found]

    return program


def numbers(source: Path) -> dict[str, np.ndarray[Any, Any]]:
    program, found = _program(source), {}
    for case, (_, _, prefix, blocks, r) in enumerate(CASES):
        x, info = (
            torch.from_numpy(tokens(case)),
            {
                "r": [r] * blocks,
                "size": None,
                "source": None,
                "trace_source": True,
                "prop_attn": True,
                "class_token": bool(prefix),
                "distill_token": False,
            },
        )
        with torch.no_grad():
            for w in torch.from_numpy(weights(case, blocks)):
                block = _Block(w)
                block.__class__, block.attn.__class__, block._tome_info = (
                    program.ToMeBlock,
                    program.ToMeAttention,
                    info,
                )
                x = block(x)
        source_of = info["source"][:, prefix:, prefix:]  # (T, K, n)
        label = source_of.argmax(2)  # a group's first token
        order = label.argsort(1)
        owner = label.gather(1, source_of.argmax(1))  # (T, n)
        values = x[:, prefix:].gather(1, order[..., None].expand(-1, -1, WIDTH))
        found[f"owner_{case}"] = owner.numpy().astype(np.int16)
        found[f"values_{case}"] = values.numpy().astype(np.float32)
        if prefix:
            found[f"front_{case}"] = x[:, :prefix].numpy()
    return found
