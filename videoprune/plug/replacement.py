"""A method of one object, replaced on the instance, and put back as it was."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


class Replacement:
    """Calls `around(stock, *args, **kwargs)` instead of `owner.name(...)`, until `undo`.

    What the instance had under that name before (accelerate puts a `forward` there) is `stock`, and comes back. The
    signature stays visible: transformers chooses by it what it moves to the call. No closures: a copy of the owner
    gets a copy of this, and does not lean on the original.
    """

    def __init__(self, owner: Any, name: str, around: Callable[..., Any]) -> None:
        self.owner, self.name, self.around = owner, name, around
        self.had = name in owner.__dict__
        self.before = owner.__dict__.get(name)
        self.active = True
        setattr(owner, name, self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.active:  # somebody wrapped this after us, and still calls it
            return self.stock(*args, **kwargs)
        return self.around(self.stock, *args, **kwargs)

    @property
    def stock(self) -> Callable[..., Any]:
        if self.had:
            return self.before
        return getattr(type(self.owner), self.name).__get__(self.owner)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.stock)

    @property
    def __name__(self) -> str:
        return self.name

    def undo(self) -> None:
        self.active = False
        if self.owner.__dict__.get(self.name) is not self:
            return
        if self.had:
            setattr(self.owner, self.name, self.before)
        else:
            delattr(self.owner, self.name)
