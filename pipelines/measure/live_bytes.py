"""Bytes of the tensors that are alive at the same time, counted: the same in every run, where what is resident in a
process moves with the allocator and with what other work left behind.

Counted is what operations make within, from when it is made until no tensor of Python names it any more; what kernels
take inside of themselves is not seen.
"""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts what is made within it, in its thread. now, peak: bytes. largest: of a single tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = self.largest = 0
        self._bytes: dict[int, int] = {}  # by storage
        self._names: Counter[int] = Counter()  # tensors that name it

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {_storage(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        out = func(*args, **(kwargs or {}))
        for one in tree_leaves(out):
            if isinstance(one, Tensor):
                self._name(one, made=_storage(one) not in before)
        return out

    def _name(self, one: Tensor, *, made: bool) -> None:
        key = _storage(one)
        if key not in self._bytes:
            if not made:  # it was there before
                return
            size = one.untyped_storage().nbytes()
            self._bytes[key] = size
            self.now += size
            self.peak, self.largest = max(self.peak, self.now), max(self.largest, size)
        self._names[key] += 1
        weakref.finalize(one, self._forget, key)

    def _forget(self, key: int) -> None:
        self._names[key] -= 1
        if not self._names[key]:
            del self._names[key]
            self.now -= self._bytes.pop(key)


def _storage(one: Tensor) -> int:
    return one.untyped_storage()._cdata
