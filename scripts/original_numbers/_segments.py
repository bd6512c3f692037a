"""Single definitions out of a file that cannot be imported whole, since its other parts need what is not installed."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any


def definitions(
    path: Path,
    names: tuple[str, ...],
    given: dict[str, Any],
    change: Callable[[ast.Module], ast.Module] = lambda tree: tree,
) -> dict[str, Any]:
    """The functions and classes `names` of the file, by name. given: globals that they use. change: of their tree."""
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if getattr(node, "name", None) in names]
    if len(tree.body) != len(names):
        raise ValueError(f"names={names}; allowed: definitions of {path.name}, which lacks some")
    space = dict(given)
    exec(compile(ast.fix_missing_locations(change(tree)), str(path), "exec"), space)
    return {name: space[name] for name in names}
