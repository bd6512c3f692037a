"""What a run knows of its rows without holding them: a million take some 200 MB, and the rows stay in their file."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from videoprune.result_row import ResultRow, result_row

Row = dict[str, Any]


class RowIndex:
    """Of each question: where its last row begins in the file, what it was made from, whether it failed, and why.

    Keys and reasons are kept as hashes of 64 bits, which only this process knows."""

    def __init__(self) -> None:
        self._slots: dict[str, int] = {}
        self._starts, self._keys, self._said = array("q"), array("q"), array("q")
        self._failed = bytearray()

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[str]:
        return iter(self._slots)

    def __contains__(self, question: object) -> bool:
        return question in self._slots

    def put(self, row: Mapping[str, Any], start: int) -> None:
        """The row that begins at byte `start` is now its question's last."""
        question, failed = row["question_id"], row.get("outcome") == "failed"
        found = (start, hash(row.get("key")), _said(row), failed)
        columns = (self._starts, self._keys, self._said, self._failed)
        slot = self._slots.setdefault(question, len(self._slots))
        for column, value in zip(columns, found, strict=True):
            if slot == len(column):
                column.append(value)
            else:
                column[slot] = value

    def start(self, question: str) -> int:
        return self._starts[self._slots[question]]

    def answered(self, question: str) -> bool:
        slot = self._slots.get(question)
        return slot is not None and not self._failed[slot]

    def made_from(self, question: str, key: str) -> bool:
        return self._keys[self._slots[question]] == hash(key)

    def failed_so(self, row: Mapping[str, Any]) -> bool:
        """Whether the last row of the question says the same failure: trying again must not make a file longer each
        time."""
        slot = self._slots.get(row["question_id"])
        if slot is None or row["outcome"] != "failed":
            return False
        return self._said[slot] == _said(row) and self._keys[slot] == hash(row.get("key"))


class StoredRows(Sequence[ResultRow]):
    """Rows of a file by where they begin: read, and checked, each time they are asked for."""

    def __init__(self, path: Path, starts: array[int]) -> None:
        self.path, self.starts = path, starts

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, at: int) -> ResultRow: ...
    @overload
    def __getitem__(self, at: slice) -> StoredRows: ...
    def __getitem__(self, at: int | slice) -> ResultRow | StoredRows:
        if isinstance(at, slice):
            return StoredRows(self.path, self.starts[at])
        return next(iter(StoredRows(self.path, array("q", [self.starts[at]]))))

    def __iter__(self) -> Iterator[ResultRow]:
        with self.path.open("rb") as file:
            for start in self.starts:
                file.seek(start)
                yield result_row(json.loads(file.readline()))


def _said(row: Mapping[str, Any]) -> int:
    return hash((row.get("outcome"), row.get("reason")))
