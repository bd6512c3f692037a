"""From what a run of `speedup --engine vllm` kept to the rows and the table of its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from pipelines.measure.plan import BASELINE
from pipelines.measure.report.tables import gap_text
from pipelines.measure.scoring import Scoring, accuracy, no_accuracy, scores
from pipelines.measure.turns import spread
from pipelines.run.row_index import Row
from pipelines.vllm.bare_clips import LEFT_OUT
from pipelines.vllm.speed_plan import VllmPlan
from videoprune.eval.summary import markdown_table


def report_rows(
    plan: VllmPlan,
    rates: Sequence[Row],
    answers: Sequence[Row],
    failed: Mapping[str, str],
    scoring: Scoring | None = None,
) -> list[Row]:
    """A row for each setting. rates, answers: lines of the two files. failed: why a setting was given up. scoring:
    None: nothing was asked for its answer."""
    runs = {label: _runs(plan, label, rates) for label in plan.labels}
    asked = {label: [r for r in answers if r["setting"] == label] for label in plan.labels}
    worth = (
        {label: scoring.once(plan.frames, label, rows) for label, rows in asked.items()} if scoring else {}
    )
    base = worth.get(BASELINE)
    rows = []
    for setting in plan.settings:
        found: Row = {
            "method": setting.method,
            "retain": setting.retain,
            "label": setting.label,
            "config": None if setting.own else setting.prune.as_dict(),
            "digest": setting.digest,
            "reason": failed.get(setting.label, ""),
            "accuracy": no_accuracy(),
        }
        found |= _tokens(runs[setting.label], runs[BASELINE])
        found["in_flight"] = _rates(plan, runs[setting.label], runs[BASELINE])
        if scoring and (run := worth.get(setting.label)) is not None:
            found |= {"accuracy": accuracy(run, base, scoring), "scores": scores(run, base)}
        rows.append(found)
    return rows


def speed_table(rows: Sequence[Row], in_flight: Sequence[int]) -> str:
    """Markdown. A cell of a number in flight: requests a second; times unpruned (lowest to highest run)."""
    columns = {n: f"{n} in flight" for n in map(str, in_flight)}
    shown = [
        {
            "method": row["label"],
            "visual": _whole(row["visual_tokens"]),
            "prompt": _whole(row["prompt_tokens"]),
            "accuracy": _percent(row["accuracy"]["all"]),
            "gap": gap_text(row),
            **{n: _cell(row, row["in_flight"].get(n)) for n in columns},
        }
        for row in rows
    ]
    heads = {"method": "method", "visual": "visual tokens a clip", "prompt": "prompt tokens"}
    heads |= {"accuracy": "accuracy %", "gap": "minus unpruned (95 %)"} | columns
    return markdown_table(shown, heads)


def _runs(plan: VllmPlan, label: str, rates: Sequence[Row]) -> dict[tuple[int, int], Row]:
    """By number in flight and run."""
    mine = (r for r in rates if r["setting"] == label and r["run"] < plan.runs)
    return {(r["in_flight"], r["run"]): r for r in mine if r["in_flight"] in plan.in_flight}


def _tokens(runs: Mapping[tuple[int, int], Row], base: Mapping[tuple[int, int], Row]) -> Row:
    """Means over the requests of runs that both have, which are about the same clips: what the prompt is shorter by,
    the clip is shorter by, but for what the worker had to leave out beside it."""
    both = [key for key in runs if key in base]
    shown = [runs[key] for key in both] or list(runs.values())
    prompt = fmean(row["prompt_tokens"] for row in shown) if shown else None
    if not both or prompt is None:
        return {"prompt_tokens": prompt, "visual_tokens": None, "dense_tokens": None}
    dense = fmean(base[key]["dense"] for key in both)
    beside = fmean(row.get(LEFT_OUT, 0) for row in shown)
    fewer = fmean(base[key]["prompt_tokens"] for key in both) - prompt - beside
    return {"prompt_tokens": prompt, "visual_tokens": dense - fewer, "dense_tokens": dense}


def _rates(
    plan: VllmPlan, runs: Mapping[tuple[int, int], Row], base: Mapping[tuple[int, int], Row]
) -> dict[str, Row]:
    """By number in flight: requests a second, and how many times those of the unpruned in the same run."""
    found: dict[str, Row] = {}
    for count in plan.in_flight:
        mine = {run: r for (n, run), r in runs.items() if n == count}
        if not mine:
            continue
        ratios = [_rate(r) / _rate(base[count, run]) for run, r in mine.items() if (count, run) in base]
        found[str(count)] = {
            "runs": len(mine),
            "requests": next(iter(mine.values()))["requests"],
            "requests_per_second": spread([_rate(r) for r in mine.values()]),
            "times_unpruned": spread(ratios) if ratios else None,
        }
    return found


def _rate(row: Row) -> float:
    rate: float = row["requests"] / row["seconds"]
    return rate


def _cell(row: Row, found: Row | None) -> str:
    if found is None:
        return "ERROR" if row["reason"] else ""
    rate, times = found["requests_per_second"]["median"], found["times_unpruned"]
    if times is None or row["method"] == BASELINE:
        return f"{rate:.3g}"
    return f"{rate:.3g}; {times['median']:.2f}x ({times['low']:.2f} to {times['high']:.2f})"


def _whole(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"
