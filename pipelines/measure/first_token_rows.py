"""From what was seen in a cell to its rows, and from rows to a table.

Shapes: L layers of the LLM.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from statistics import fmean

from pipelines.measure.alternating import spread
from pipelines.measure.first_token import first_token_cost
from pipelines.measure.settings import BASELINE, Cell, LoadedModel, Setup, Taken, Variant
from pipelines.run.results import Row
from videoprune.config import PruneConfig
from videoprune.cost.operations import Cost

MEASURED, FAILED = "measured", "failed"
_MIB = 2**20
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
    "speedup (low to high)",
    "FLOP-ideal",
    "of ideal",
    "runs",
)


def row_name(cell: Cell, variant: Variant) -> str:
    return f"{cell} {variant.label}"


def failed_row(cell: Cell, variant: Variant, reason: str) -> Row:
    return {**_named(cell, variant), "status": FAILED, "reason": reason}


def measured_rows(
    loaded: LoadedModel, cell: Cell, seen: Sequence[tuple[Variant, Taken]], *, cell_seconds: float
) -> list[Row]:
    """A row for each variant that was measured; ratios are to `none` in the same turn, None where it failed.

    cell_seconds: what the cell took in all, loading included, for the next one's estimate.
    """
    by_label = {v.label: t for v, t in seen}
    base = by_label.get(BASELINE)
    dense = _costs(loaded, cell, PruneConfig(), base) if base else Counter()
    rows = []
    for variant, taken in seen:
        counts = taken if taken.visual else base  # the stock model computes on what `none` does
        costs = _costs(loaded, cell, variant.prune or PruneConfig(), counts) if counts else Counter()
        row = _named(cell, variant) | {"status": MEASURED, "cell_seconds": cell_seconds}
        row["loading_seconds"] = loaded.seconds
        row |= _times(cell, taken) | _tokens(counts) | {"peak_bytes": taken.peak_bytes}
        rows.append(row | _ratios(taken, base, costs, dense))
    return rows


def _named(cell: Cell, variant: Variant) -> Row:
    prune = variant.prune
    return {
        "question_id": row_name(cell, variant),  # as `Results` wants it
        **asdict(cell),
        "variant": variant.label,
        "method": variant.method,
        "retain": variant.retain,
        "config": prune.as_dict() if prune else None,
        "digest": prune.digest() if prune else None,
    }


def _times(cell: Cell, taken: Taken) -> Row:
    """Seconds of the call, not of a clip."""
    stages = next(iter(taken.runs.values()))
    seconds = {s: spread([r[s] for r in taken.runs.values()]) for s in stages}
    total = seconds["first_token"]["median"]
    return {
        "runs": len(taken.runs),
        "prompt": taken.prompt,
        "seconds": seconds,
        "first_token_by_run": [r["first_token"] for r in taken.runs.values()],
        "questions_per_second": cell.concurrency / total,
        "choosing_share": seconds["choosing"]["median"] / total,
    }


def _tokens(counts: Taken | None) -> Row:
    """Visual tokens of a clip by layer (L,), the mean over clips."""
    layers = [fmean(n) for n in zip(*counts.visual, strict=True)] if counts else None
    return {"visual_by_layer": layers}


def _costs(loaded: LoadedModel, cell: Cell, prune: PruneConfig, counts: Taken) -> Counter[Cost]:
    """The cost of each clip, by cost how many clips have it."""
    found: Counter[Cost] = Counter()
    for layers, clips in Counter(counts.visual).items():
        found[
            first_token_cost(
                loaded.model,
                prune,
                frames=cell.frames,
                prompt_tokens=counts.prompt,
                question_tokens=loaded.setup.text,
                size=loaded.setup.size,
                visual_by_layer=layers,
            )
        ] += clips
    return found


def _ratios(taken: Taken, base: Taken | None, costs: Counter[Cost], dense: Counter[Cost]) -> Row:
    flops = sum(c.without_pruning * n for c, n in costs.items())
    row: Row = {
        "flops": {"without_choosing": flops, "choosing": sum(c.pruning * n for c, n in costs.items())},
        "kv_bytes": sum(c.kv_bytes * n for c, n in costs.items()),
        "speedup": None,
        "flop_ideal": None,
        "share_of_ideal": None,
    }
    if base is None or not costs:
        return row
    turns = sorted(taken.runs.keys() & base.runs.keys())
    faster = spread([base.runs[t]["first_token"] / taken.runs[t]["first_token"] for t in turns])
    ideal = sum(c.without_pruning * n for c, n in dense.items()) / flops
    return row | {
        "speedup": faster,
        "flop_ideal": ideal,
        "share_of_ideal": faster["median"] / ideal,
    }


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
        lines += [_line(_HEAD), _line(["---"] * len(_HEAD)), *(_line(_shown(r)) for r in measured)]
    failed = [f"- `{r['variant']}` not measured: {r['reason']}" for r in rows if r["status"] == FAILED]
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
        _with_spread(faster, 1, 2) if faster else "",
        *(f"{row[k]:.2f}" if row[k] else "" for k in ("flop_ideal", "share_of_ideal")),
        str(row["runs"]),
    ]


def _with_spread(value: dict[str, float], scale: float, digits: int) -> str:
    middle, low, high = (f"{scale * value[k]:.{digits}f}" for k in ("median", "low", "high"))
    return f"{middle} ({low} to {high})"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
