"""FlashVID (Fanziyang-v/FlashVID): `flashvid_compression`, with `expansion` 1 and its noise replaced by `falling`.

Where there is but one cluster that noise alone draws its centre: there it is the first token.
"""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from numpy.typing import NDArray

from ._cases import CLIPS, SHARES, falling, packed, tensors

METHODS = {"v1": "attn_div", "v2": "attn_div_v2"}


def numbers(source: Path) -> dict[str, NDArray[Any]]:
    package = types.ModuleType("flashvid")  # its __init__ needs LLaVA-NeXT; the functions need none of it
    package.__path__ = [str(source / "flashvid")]
    with mock.patch.dict(sys.modules, {"flashvid": package}):
        utils = importlib.import_module("flashvid.utils")
        config = importlib.import_module("flashvid.configuration_flashvid").FlashVidConfig
    clusters = utils.dpc_knn

    def first_of_one(*args: Any, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        cluster, centre = clusters(*args, **options)
        return cluster, centre * (centre.shape[1] > 1)

    utils.dpc_knn = first_of_one
    found: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {}
    for clip in CLIPS:
        x, attention = (torch.from_numpy(t) for t in tensors(clip))
        for share in SHARES:
            for form, method in METHODS.items():
                settings = config(
                    retention_ratio=share,
                    expansion=1.0,
                    token_selection_method=method,
                    min_segment_num=max(1, min(8, len(x) // 4)),
                )
                with mock.patch("torch.rand_like", lambda like, **_: falling(like.shape)):
                    values, place = utils.flashvid_compression(x.clone(), attention.clone(), settings)
                found[f"{clip} {share} {form}"] = place.numpy(), values.numpy()
    return packed(found)
