"""Results of a speed run as rows that can be drawn and tabled: checked, named, grouped.

A result is a mapping with `meta`, `rows`, `refused` and `frames`; a row has `method`, `retain`, `retention`, `frames`,
`concurrency`, `ours`, `accuracy`, `seconds` (by stage: median, low, high), `speedup`, `tokens`, `flops` and more. Only
what `needed` names must be there; what else is missing stays empty.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
STAGES = ("decode", "preprocess", "encode", "prune", "fuse", "prefill", "generate")
BASELINE = "none"
_NEEDED = ("method", "retain", "retention", "frames", "concurrency", "seconds.first_token.median")


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
    found = value(row, path)
    plain = isinstance(found, int | float) and not isinstance(found, bool)
    return float(found) if plain and math.isfinite(found) else None


def is_baseline(row: Row) -> bool:
    return bool(row["method"] == BASELINE)


def check(results: Mapping[str, Any]) -> tuple[list[Row], list[dict[str, str]]]:
    """Rows that can be used, and the refused: those of the run, and rows that lack something, with the reason.

    Raises ValueError if `rows` is no list or `meta` no mapping.
    """
    if not isinstance(results.get("meta"), Mapping):
        raise ValueError("results: no mapping 'meta'; allowed: a mapping of dataset, model, hardware ...")
    if not isinstance(results.get("rows"), list):
        raise ValueError("results: no list 'rows'; allowed: a list, one mapping for each method and setting")
    rows: list[Row] = []
    refused = [
        {"method": str(r.get("method", "")), "reason": str(r.get("reason", ""))}
        for r in results.get("refused") or []
    ]
    for i, row in enumerate(results["rows"]):
        reason = _lacks(row)
        if reason is None:
            rows.append(row)
        else:
            name = str(row.get("method", "")) if isinstance(row, Mapping) else ""
            refused.append({"method": name or f"row {i}", "reason": f"row {i} of the results: {reason}"})
    return rows, refused


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


def _lacks(row: Any) -> str | None:
    """What a row needs and does not have."""
    if not isinstance(row, Mapping):
        return "not a mapping"
    for path in _NEEDED:
        found = value(row, path)
        if found is None:
            return f"no {path}"
        if path == "method":
            if not isinstance(found, str) or not found:
                return f"method={found!r}; allowed: a name"
        elif number(row, path) is None or float(found) < 0:
            return f"{path}={found!r}; allowed: a number from 0 on"
    return None
