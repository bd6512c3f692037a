"""Rows of cells -> a Markdown table for each cell."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.measure.cell_rows import FAILED, MEASURED, is_error
from pipelines.measure.cells import Setup
from pipelines.run.results import Row
from videoprune.eval.summary import markdown_table

_MIB = 2**20
_BOUND = ("bound_ideal", "share_of_bound")
_HEAD = (
    "variant",
    "first token ms (low to high)",
    "encoder",
    "between",
    "LLM",
    "choosing %",
    "questions/s",
    "tokens in the LLM, first to last layer",
    "KV MiB",
    "peak MiB",
    "kernels",
    "waits",
    "speedup (low to high)",
    "FLOP-ideal",
    "of ideal",
    "bound",
    "of bound",
    "runs",
)


def markdown(rows: Sequence[Row], setup: Setup, heading: str) -> str:
    """A table for each cell under a heading of its own, and what could not be measured under it."""
    parts = [
        f"{heading}; {setup.dtype}, medians of the timed runs after {setup.warmup} to warm up. Milliseconds are of "
        "the whole call; the ratio is to `none` in the same turn."
    ]
    cells = dict.fromkeys((r["shape"], r["frames"], r["concurrency"]) for r in rows)
    for cell in cells:
        mine = [r for r in rows if (r["shape"], r["frames"], r["concurrency"]) == cell]
        parts.append(_cell_table(mine))
    return "\n\n".join(parts) + "\n"


def _cell_table(rows: Sequence[Row]) -> str:
    first, measured = rows[0], [r for r in rows if r["status"] == MEASURED]
    clips = first["concurrency"]
    title = f"## {first['shape']}, {first['frames']} frames, {clips} clip{'s' if clips > 1 else ''} in a call"
    lines = [title, ""]
    if measured:
        lines += [f"Prompts of {measured[0]['prompt']} tokens before pruning.", ""]
        shown = [dict(zip(_HEAD, _shown(r), strict=True)) for r in measured]
        lines.append(markdown_table(shown, _HEAD).rstrip())
    failed = [
        f"- `{r['variant']}` {'ERROR' if is_error(r) else 'not measured'}: {r['reason']}"
        for r in rows
        if r["status"] == FAILED
    ]
    return "\n".join([*lines, *([""] if measured and failed else []), *failed])


def _shown(row: Row) -> list[str]:
    seconds, layers, faster = row["seconds"], row["visual_by_layer"], row["speedup"]
    return [
        row["variant"],
        _with_spread(seconds["first_token"], 1000, 1),
        *(f"{1000 * seconds[s]['median']:.1f}" for s in ("encoder", "between", "llm")),
        f"{100 * row['choosing_share']:.1f}",
        f"{row['questions_per_second']:.2f}",
        f"{layers[0]:.0f} to {layers[-1]:.0f}" if layers else "",
        f"{row['kv_bytes'] / _MIB:.1f}" if layers else "",
        f"{row['peak_bytes'] / _MIB:.0f}" if row["peak_bytes"] is not None else "",
        *("" if row.get(k) is None else str(row[k]) for k in ("kernels", "waits")),
        _with_spread(faster, 1, 2) if faster else "",
        *(f"{row[k]:.2f}" if row.get(k) else "" for k in ("flop_ideal", "share_of_ideal", *_BOUND)),
        str(row["runs"]),
    ]


def _with_spread(value: dict[str, float], scale: float, digits: int) -> str:
    middle, low, high = (f"{scale * value[k]:.{digits}f}" for k in ("median", "low", "high"))
    return f"{middle} ({low} to {high})"
