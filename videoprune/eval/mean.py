"""Means of figures that come one by one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_DIGITS = 6
_KINDS: dict[type, type] = {int: float, float: float, bool: float, list: list, tuple: list, dict: dict}


class Mean:
    """Of numbers, of lists (element by element), or of mappings (key by key, over those that have the key).

    name: of what, for errors. count: how many there were."""

    def __init__(self, name: str) -> None:
        self.name, self.count = name, 0
        self._kind: type | None = None
        self._total: Any = 0
        self._parts: dict[Any, Mean] = {}
        self._length: int | None = None  # of lists

    def add(self, value: Any) -> None:
        """Raises ValueError for what does not fit to what was there before."""
        kind = _KINDS.get(type(value))
        if not self.count:
            self._kind = kind
        if kind is None or kind is not self._kind:
            raise ValueError(f"{self.name}={value!r}; allowed: a number in every record")
        self.count += 1
        if kind is float:
            self._total += value
        elif kind is dict:
            self._add_parts(value.items(), ".{}")
        else:
            self._check_length(len(value))
            self._add_parts(enumerate(value), "[{}]")

    def value(self) -> Any:
        """Rounded to six digits; in the form of what was added."""
        if self._kind is float:
            return round(self._total / self.count, _DIGITS)
        parts = {key: part.value() for key, part in self._parts.items()}
        return parts if self._kind is dict else list(parts.values())

    def _add_parts(self, parts: Iterable[tuple[Any, Any]], form: str) -> None:
        """form: of a part's name behind this one's."""
        for key, part in parts:
            if key not in self._parts:
                self._parts[key] = Mean(self.name + form.format(key))
            self._parts[key].add(part)

    def _check_length(self, length: int) -> None:
        if self._length not in (None, length):
            lengths = sorted({self._length, length})
            raise ValueError(f"{self.name}: lists of lengths {lengths}; allowed: one length in a run")
        self._length = length
