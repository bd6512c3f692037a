"""Results of a speed run as rows that can be drawn and tabled: named, grouped, their figures as columns.

A result is a mapping with `meta`, `rows`, `refused` and `frames`; a row, as `report_rows` makes it, has `method`,
`retain` (wanted), `retention` (measured, all visual tokens counted, a newline's too), `side`, `frames`, `concurrency`,
`ours`, `accuracy`, `scores`, `seconds` (by stage: median, low, high), `speedup`, `tokens`, `flops` and more. A figure
that is missing stays empty.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.measure.plan import BASELINE
from pipelines.measure.report.pareto import pareto

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
    """A name for each row: its method and the share of the visual tokens that it was measured to keep."""
    names = ["unpruned" if is_baseline(r) else f"{r['method']} {100 * r['retention']:.1f} %" for r in rows]
    twice = {name for name in names if names.count(name) > 1}
    return [
        f"{name} (own share {row.get('share') or row['retain']:g})" if name in twice else name
        for name, row in zip(names, rows, strict=True)
    ]


def first_token_seconds(row: Row) -> float:
    return number(row, "seconds.first_token.median") or 0.0


def first_token_operations(row: Row) -> float:
    """Gflop, choosing tokens included."""
    return sum(number(row, f"flops.{stage}") or 0.0 for stage in ("encoder", "prune", "prefill")) / 1e9


def fronts(group: Group) -> list[str]:
    """Of each row, on which front it is, "time", "operations" or both: nothing is both cheaper up to the first token
    and better. Only what has a measured retention and an accuracy takes part."""
    found: list[list[str]] = [[] for _ in group.rows]
    known = [i for i, r in enumerate(group.rows) if number(r, "retention") is not None]
    known = [i for i in known if number(group.rows[i], "accuracy.all") is not None]
    for name, cost in (("time", first_token_seconds), ("operations", first_token_operations)):
        there = [i for i in known if cost(group.rows[i]) > 0]
        points = [(cost(group.rows[i]), number(group.rows[i], "accuracy.all") or 0.0) for i in there]
        for place in pareto(points):
            found[there[place]].append(name)
    return [", ".join(names) for names in found]


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
