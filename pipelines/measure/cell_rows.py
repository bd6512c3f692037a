"""From what was seen in a cell to its rows.

Shapes: L layers of the LLM.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from statistics import fmean

from pipelines.measure.cells import Cell, LoadedModel, Taken
from pipelines.measure.cost import Prompt, predict, predict_steps
from pipelines.measure.plan import BASELINE, Setting
from pipelines.measure.turns import spread
from pipelines.run.results import Row
from videoprune.config import PruneConfig
from videoprune.cost.operations import Cost
from videoprune.cost.roofline import Machine, Step, bound_seconds
from videoprune.models.shapes import model_shape

MEASURED, FAILED = "measured", "failed"


def row_name(cell: Cell, setting: Setting) -> str:
    return f"{cell} {setting.label}"


def failed_row(cell: Cell, setting: Setting, reason: str) -> Row:
    return {**_named(cell, setting), "status": FAILED, "reason": reason}


def is_error(row: Row) -> bool:
    """Whether something raised there; running out of memory is a finding."""
    return row["status"] == FAILED and not row["reason"].startswith("OutOfMemoryError")


def measured_rows(
    loaded: LoadedModel,
    cell: Cell,
    seen: Sequence[tuple[Setting, Taken]],
    *,
    cell_seconds: float,
    machine: Machine | None = None,
) -> list[Row]:
    """A row for each setting that was measured; ratios are to `none` in the same turn, None where it failed.

    cell_seconds: what the cell took in all, loading included, for the next one's estimate. machine: what it ran on, for
    the bound by operations and bytes; None: that is left out.
    """
    by_label = {s.label: t for s, t in seen}
    base = by_label.get(BASELINE)
    dense = _costs(loaded, cell, PruneConfig(), base) if base else Counter()
    rows = []
    for setting, taken in seen:
        counts = taken if taken.visual else base  # the stock model computes on what `none` does
        costs = _costs(loaded, cell, setting.config, counts) if counts else Counter()
        row = _named(cell, setting) | {"status": MEASURED, "cell_seconds": cell_seconds}
        row["loading_seconds"] = loaded.seconds
        row |= _times(cell, taken) | _tokens(counts) | {"peak_bytes": taken.peak_bytes}
        row |= {"kernels": taken.kernels, "waits": taken.waits}
        row |= _ratios(taken, base, costs, dense)
        if machine is not None and base is not None and counts is not None:
            row |= _bound(loaded, cell, setting.config, counts, base, machine, row["speedup"])
        rows.append(row)
    return rows


def _named(cell: Cell, setting: Setting) -> Row:
    prune = setting.prune
    return {
        "question_id": row_name(cell, setting),  # as `Results` wants it
        **asdict(cell),
        "variant": setting.label,
        "method": setting.method,
        "retain": setting.retain,
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
    model, setup = loaded.model, loaded.setup
    shape, prompt = model_shape(model.config), Prompt(cell.frames, counts.prompt, setup.text, setup.size)
    width = model.dtype.itemsize
    found: Counter[Cost] = Counter()
    for layers, clips in Counter(counts.visual).items():
        found[predict(shape, prompt, prune, visual_by_layer=layers, bytes_per_value=width)] += clips
    return found


def _bound(
    loaded: LoadedModel,
    cell: Cell,
    prune: PruneConfig,
    counts: Taken,
    base: Taken,
    machine: Machine,
    faster: dict[str, float] | None,
) -> Row:
    """What the machine's rates allow at best, in seconds and as a speedup, and the share of that which was reached."""
    width = loaded.model.dtype.itemsize
    seconds = bound_seconds(_steps(loaded, cell, prune, counts), machine, width)
    ideal = bound_seconds(_steps(loaded, cell, PruneConfig(), base), machine, width) / seconds
    return {
        "bound_seconds": seconds,
        "bound_ideal": ideal,
        "share_of_bound": faster["median"] / ideal if faster else None,
    }


def _steps(loaded: LoadedModel, cell: Cell, prune: PruneConfig, counts: Taken) -> Counter[tuple[Step, ...]]:
    """What each clip takes, layer by layer, and how many clips take it."""
    shape, setup = model_shape(loaded.model.config), loaded.setup
    prompt = Prompt(cell.frames, counts.prompt, setup.text, setup.size)
    found: Counter[tuple[Step, ...]] = Counter()
    for layers, clips in Counter(counts.visual).items():
        found[predict_steps(shape, prompt, prune, visual_by_layer=layers)] += clips
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
