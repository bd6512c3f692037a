"""FastVID (LunarShen/FastVID): what its Qwen2Model.forward for LLaVA-OneVision does before the first layer, its noise
replaced by `falling`, given the mean token of a frame as the frame's feature."""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from ._cases import CLIPS, SHARES, falling, packed, tensors

FILE = "fastvid_llavaonevision/LLaVA-NeXT/llava/model/language_model/modeling_qwen2.py"
# An anchor is to hold more tokens than it has; there is no contextual token at all.
_FAILURES = ("selected index k out of range", "Expected reduction dim 2 to have non-zero size")
_TEXT = 3  # text tokens before and behind the video


def numbers(source: Path) -> dict[str, NDArray[Any]]:
    code = _block(source / FILE)
    found: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {}
    for clip in CLIPS:
        x, attention = (torch.from_numpy(t) for t in tensors(clip))
        for share in SHARES:
            try:
                values, place = _run(code, x, attention, share)
            except (RuntimeError, IndexError) as why:
                if not any(words in str(why) for words in _FAILURES):
                    raise
                continue
            found[f"{clip} {share}"] = place, values
    return packed(found)


def _block(file: Path) -> Any:
    """The statement of the forward that prunes: the one that names the segments' threshold."""
    text = file.read_text()
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.If) or ast.unparse(node.test) != "seq_length > 1":
            continue
        if "fastvid_DySeg_tau" in ast.unparse(node):
            return compile(ast.Module([node], []), str(file), "exec")
    raise ValueError(f"{file}: no statement that prunes")


def _run(
    code: Any, x: torch.Tensor, attention: torch.Tensor, share: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    frames, tokens, width = x.shape
    text = torch.zeros(_TEXT, width)
    hidden = torch.cat([text, x.flatten(0, 1), text])[None]
    model = SimpleNamespace(
        frame_num=frames,
        video_token_len=frames * tokens,
        video_start_idx=_TEXT,
        frame_attn_weights=attention.flatten(),
        frame_global_features=x.mean(1),
        fastvid_retention_ratio=share,
        fastvid_DySeg_c=max(1, min(8, frames // 4)),
        fastvid_DySeg_tau=0.9,
        fastvid_STPrune_d=0.4,
        fastvid_DTM_p=4,
        fastvid_DTM_beta=0.6,
    )
    length = hidden.shape[1]
    names: dict[str, Any] = {
        "self": model,
        "torch": torch,
        "F": F,
        "hidden_states": hidden,
        "seq_length": length,
        "causal_mask": None,
        "position_embeddings": (torch.zeros(1, length, 1),) * 2,
    }
    with mock.patch("torch.rand", falling):
        exec(code, names)
    place = names["keep_indexs"] - _TEXT
    video = (place >= 0) & (place < frames * tokens)
    return names["hidden_states"][0][video].numpy(), place[video].numpy()
