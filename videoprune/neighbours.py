"""Items that follow each other, in groups that may go together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def neighbours(items: Iterable[T], fits: Callable[[list[T], T], bool]) -> Iterator[list[T]]:
    """The items in their order, in groups as long as can be; one that fits nowhere stands alone.

    fits: whether an item may join a group that has something in it.
    """
    group: list[T] = []
    for item in items:
        if group and not fits(group, item):
            yield group
            group = []
        group.append(item)
    if group:
        yield group
