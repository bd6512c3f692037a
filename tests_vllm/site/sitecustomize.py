"""Python reads this at its start where this folder is on PYTHONPATH, as `make test-vllm` has it.

What pip finds as torchvision is built for CUDA alone. Beside a torch without CUDA its operators
do not load, and the import fails where it says what shapes they have. Nothing here calls one: names are enough.
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from importlib.util import find_spec
from pathlib import Path

_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class _BeforeTorchvision(MetaPathFinder):
    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name != "torchvision":
            return
        sys.meta_path.remove(self)
        import torch

        found = find_spec("torchvision")
        if torch.version.cuda is not None or found is None or found.origin is None:
            return
        try:
            torch.ops.load_library(str(Path(found.origin).parent / "_C.so"))
        except OSError:
            for operator in _OPERATORS:
                torch.library.define(f"torchvision::{operator}", _SCHEMA)


sys.meta_path.insert(0, _BeforeTorchvision())
