"""Results of a speed run as rows that can be drawn and tabled: named, grouped, their figures as columns.

A result is a mapping with `meta`, `rows`, `refused` and `frames`; a row, as `report_rows` makes it, has `method`,
`retain`, `retention`, `frames`, `concurrency`, `ours`, `accuracy`, `seconds` (by stage: median, low, high), `speedup`,
`tokens`, `flops` and more. A figure that is missing stays empty.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.measure.plan import BASELINE

Row = Mapping[str, Any]
STAGES = ("decode", "preprocess", "encode", "prune", "fuse", "prefill", "generate")


@dataclass(frozen=True)
class Group:
    """Rows that may be compared: the same frames, the same concurrency. labels: a name for each row."""

    frames: int
    concurrency: int
    rows: tuple[Row, ...]
    labels: tuple[str, ...]

    @property
    def title(self) -> str:
        return f"{self.frames} frames, {self.concurrency} at once"

    @property
    def measured(self) -> bool:
        """Whether any row has an accuracy."""
        return any(value(row, "accuracy.all") is not None for row in self.rows)


@dataclass(frozen=True)
class Column:
    """path: where the figure lies in a row; of a list the last counts. factor, digits: how it is shown. title: what the
    heading says. interval: the path of what stands in brackets behind. ratio: to the unpruned model."""

    heading: str
    path: str
    factor: float = 1.0
    digits: int = 2
    title: str = ""
    interval: str = ""
    ratio: bool = False

    def text(self, row: Row, thousands: str = "") -> str:
        """As shown; empty where it is missing. thousands: what parts them."""
        found = self.number(row)
        return "" if found is None else f"{found * self.factor:,.{self.digits}f}".replace(",", thousands)

    def number(self, row: Row) -> float | None:
        found = value(row, self.path)
        if isinstance(found, list):
            found = found[-1] if found else None
        return float(found) if isinstance(found, int | float) and math.isfinite(found) else None

    def range(self, row: Row) -> str:
        """The interval, "57.0 to 63.0"; empty where there is none."""
        found = value(row, self.interval) if self.interval else None
        return " to ".join(f"{x * self.factor:.{self.digits}f}" for x in found or ())


def value(row: Row, path: str) -> Any:
    """What lies at the dotted `path`, or None: value(row, "seconds.encode.median")."""
    found: Any = row
    for name in path.split("."):
        if not isinstance(found, Mapping) or name not in found:
            return None
        found = found[name]
    return found


def number(row: Row, path: str) -> float | None:
    """As `value`, None for what is no finite number."""
    return Column("", path).number(row)


def is_baseline(row: Row) -> bool:
    return bool(row["method"] == BASELINE)


def groups(rows: Sequence[Row]) -> list[Group]:
    """Rows by frames and concurrency, ascending; within them the unpruned first, then ours, then by name."""
    found: dict[tuple[int, int], list[Row]] = {}
    for row in rows:
        found.setdefault((row["frames"], row["concurrency"]), []).append(row)
    made = []
    for (frames, concurrency), members in sorted(found.items()):
        members.sort(key=lambda r: (not is_baseline(r), not r.get("ours", False), r["method"], -r["retain"]))
        made.append(Group(frames, concurrency, tuple(members), tuple(labels(members))))
    return made


def labels(rows: Sequence[Row]) -> list[str]:
    """A name for each row: its method, with the wanted share where a method has several."""
    shares: dict[str, set[float]] = {}
    for row in rows:
        shares.setdefault(row["method"], set()).add(row["retain"])
    return [
        "unpruned"
        if is_baseline(row)
        else f"{row['method']} {100 * row['retain']:.3g} %"
        if len(shares[row["method"]]) > 1
        else row["method"]
        for row in rows
    ]


def flatten(row: Row) -> dict[str, Any]:
    """One level: {"a": {"b": 1}, "c": [1, 2]} -> {"a.b": 1, "c": "1;2"}."""
    return dict(_leaves(row, ""))


def _leaves(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, item in node.items():
        if isinstance(item, Mapping):
            yield from _leaves(item, f"{prefix}{key}.")
        elif isinstance(item, list | tuple):
            yield f"{prefix}{key}", ";".join(str(x) for x in item)
        else:
            yield f"{prefix}{key}", "" if item is None else item
