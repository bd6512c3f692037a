"""How many kernels a call launches, and how often the host waits for one: what a GPU would feel, counted on any device.

Every operation that makes or changes numbers counts as one kernel, views and bare memory as none; a library may need
several for one (a sort), or join some. What lies on the host even beside a GPU is counted too: the figure is an upper
bound, good to compare two ways to do the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# Memory without numbers in it, names for what is there, and what no device does.
_FREE = {
    f"aten::{name}"
    for name in (
        "_unsafe_view",
        "alias",
        "detach",
        "empty",
        "empty_like",
        "empty_strided",
        "lift_fresh",
        "new_empty",
        "new_empty_strided",
        "promote_types",
    )
}
# The size of what they give, or where they go on, depends on numbers.
_WAITING = {
    f"aten::{name}"
    for name in (
        "_local_scalar_dense",
        "_unique2",
        "bincount",
        "equal",
        "is_nonzero",
        "masked_select",
        "nonzero",
        "unique_consecutive",
        "unique_dim",
    )
}
_BY_MASK = ("aten::index", "aten::index_put", "aten::index_put_")
_TO_THE_HOST = ("tolist", "numpy", "cpu")


class Launches:
    """kernels, waits: how often each operation was one."""

    def __init__(self) -> None:
        self.kernels: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()


class _Operations(TorchDispatchMode):
    def __init__(self, found: Launches) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if name not in _FREE and not _is_view(func):
            self.found.kernels[name] += 1
        if name in _WAITING or _by_mask(name, args) or str(func) == "aten.repeat_interleave.Tensor":
            self.found.waits[name] += 1
        return func(*args, **(kwargs or {}))


class _Calls(TorchFunctionMode):
    """Ways to the host that a tensor on a CPU takes without an operation."""

    def __init__(self, found: Launches) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in _TO_THE_HOST and args and isinstance(args[0], Tensor):
            self.found.waits[name] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def launches() -> Iterator[Launches]:
    """What is launched within, in this thread."""
    found = Launches()
    with _Operations(found), _Calls(found):
        yield found


def _is_view(func: Any) -> bool:
    """Whether what it returns is another name for what it was given."""
    return any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)


def _by_mask(name: str, args: Any) -> bool:
    if name not in _BY_MASK:
        return False
    return any(isinstance(i, Tensor) and i.dtype == torch.bool for i in args[1])
