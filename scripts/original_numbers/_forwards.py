"""The authors' own functions, cut by name out of files that cannot be imported here, in a space of stand-ins."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._llm_prompts import attention, behind_layer


def functions(path: Path, names: Sequence[str], space: dict[str, Any]) -> list[Any]:
    """Functions, or methods as "Class.method", of the file at `path`, whose globals are `space`."""
    tree = ast.parse(path.read_text())
    return [_made(_found(tree, name), path, space) for name in names]


def _found(tree: ast.Module, name: str) -> ast.FunctionDef:
    body: Sequence[ast.stmt] = tree.body
    *owner, last = name.split(".")
    for part in owner:
        body = next(n for n in body if isinstance(n, ast.ClassDef) and n.name == part).body
    return next(n for n in body if isinstance(n, ast.FunctionDef) and n.name == last)


def _made(node: ast.FunctionDef, path: Path, space: dict[str, Any]) -> Any:
    future = ast.parse("from __future__ import annotations").body  # names in annotations need not exist
    node.decorator_list = []
    exec(compile(ast.Module([*future, node], []), str(path), "exec"), space)
    return space[node.name]


class Layer:
    """A made-up decoder layer in the place of a real one."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.mlp = SimpleNamespace(up_proj=SimpleNamespace(out_features=1))

    def hidden(self, x: Tensor) -> Tensor:
        """(1, n, W) -> (1, n, W)."""
        return torch.from_numpy(behind_layer(x[0].numpy(), self.index))[None]

    def paid(self, x: Tensor) -> Tensor:
        """(1, n, W) -> attention (1, H, n, n)."""
        return torch.from_numpy(attention(x[0].numpy(), self.index, slice(None)))[None]


def stand_in(layers: Sequence[Any], *, use_cache: bool = False, **more: Any) -> SimpleNamespace:
    """What a forward of a decoder asks of its model, with these layers; more: what only one program asks."""
    config = SimpleNamespace(
        output_attentions=False,
        output_hidden_states=False,
        use_cache=use_cache,
        use_return_dict=True,
        num_hidden_layers=len(layers),
    )
    return SimpleNamespace(
        config=config,
        gradient_checkpointing=False,
        training=False,
        layers=layers,
        norm=lambda x: x,
        **more,
    )


def numbered(values: Sequence[float]) -> np.ndarray:
    return np.array(values, np.int64)
