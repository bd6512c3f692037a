"""HoliTom (cokeshao/HoliTom): its part before the LLM, as `prepare_inputs_labels_for_multimodal` runs it, its noise
replaced by `falling`.

Where there is but one cluster that noise alone draws its centre: there it is the first token.
"""

from __future__ import annotations

import importlib
import os
import sys
import types
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray

from ._cases import CLIPS, SHARES, falling, packed, tensors

TAUS = ("0.65", "0.80")
_STOP = "stop behind the vision side"


def numbers(source: Path) -> dict[str, NDArray[Any]]:
    authors = _authors(source)
    found: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {}
    for clip in CLIPS:
        x, attention = (torch.from_numpy(t) for t in tensors(clip))
        total = x.shape[0] * x.shape[1]
        for share in SHARES:
            for tau in TAUS:
                # The share that a whole number of tokens is.
                settings = {"RETAIN_RATIO": repr(round(share * total) / total), "T": tau}
                with (
                    mock.patch.dict(os.environ, settings),
                    mock.patch("torch.rand", falling),
                    mock.patch("builtins.print"),
                ):
                    values, place = _run(authors, x, attention)
                order = np.argsort(place)
                found[f"{clip} {share} {tau}"] = place[order], values[order]
    return packed(found)


def _authors(source: Path) -> Any:
    """The authors' class, with LLaVA-NeXT's modules stubbed and the package's __init__ left out."""
    stubs: dict[str, types.ModuleType] = {}
    names = {
        "llava": (),
        "llava.constants": (
            "IGNORE_INDEX",
            "IMAGE_TOKEN_INDEX",
            "DEFAULT_IMAGE_PATCH_TOKEN",
            "DEFAULT_IM_START_TOKEN",
            "DEFAULT_IM_END_TOKEN",
        ),
        "llava.mm_utils": ("get_anyres_image_grid_shape",),
        "llava.utils": ("rank0_print", "rank_print"),
    }
    for name, attributes in names.items():
        stubs[name] = types.ModuleType(name)
        for attribute in attributes:
            setattr(stubs[name], attribute, lambda *_: None)
    package = types.ModuleType("holitom")
    package.__path__ = [str(source / "holitom")]
    with mock.patch.dict(sys.modules, {**stubs, "holitom": package}):
        return importlib.import_module("holitom.llava_arch").LlavaMetaForCausalLM_holitom


def _run(authors: Any, x: torch.Tensor, attention: torch.Tensor) -> tuple[NDArray[Any], NDArray[Any]]:
    """Values (K, D) and places (K,) of the tokens that it hands to the LLM."""
    values: list[torch.Tensor] = []
    places: list[torch.Tensor] = []
    tokens = x.shape[1]
    frame = 0

    class Recorded(authors):  # type: ignore[misc]
        """Pooled tokens go in; every merging notes what it leaves, and where."""

        config = types.SimpleNamespace(mm_patch_merge_type=_STOP)
        model = None

        def get_vision_tower(self) -> object:
            return self

        def encode_images_multi(self, images: torch.Tensor) -> tuple[Any, ...]:
            return x, attention, None, x.dtype

        def get_2dPool(self, t: torch.Tensor) -> torch.Tensor:  # noqa: N802
            return t

        def cluster_dpc_knn(self, *args: Any, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
            centre, distance = super().cluster_dpc_knn(*args, **options)
            return centre * (centre.shape[1] > 1), distance

        def merge_tokens_by_attention_density(self, *args: Any) -> Any:
            return self.note(super().merge_tokens_by_attention_density(*args), each=True)

        def merge_tokens_by_density(self, *args: Any) -> Any:
            return self.note(super().merge_tokens_by_density(*args), each=False)

        def note(self, result: tuple[torch.Tensor, torch.Tensor], *, each: bool) -> Any:
            start = frame + torch.arange(len(result[1])) if each else torch.tensor([frame])
            values.append(result[0].flatten(0, 1))
            places.append((result[1].long() + tokens * start[:, None]).flatten())
            return result

        def holitom(self, *args: Any) -> Any:
            nonlocal frame
            result = super().holitom(*args)
            frame += args[5]  # the segment's frames
            return result

    ids, images = (
        torch.zeros(1, 2, dtype=torch.long),
        [x[..., None]],
    )  # pixels, of which only the frames count
    try:
        Recorded().prepare_inputs_labels_for_multimodal(ids, None, None, None, None, images, ["video"])
    except ValueError as stop:
        if _STOP not in str(stop):
            raise
    assert frame == len(x)
    return torch.cat(values).numpy(), torch.cat(places).numpy()
