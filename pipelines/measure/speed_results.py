"""From the rows of a speed run to the figures of its report: medians, paired ratios, accuracy, operations."""

from __future__ import annotations

from statistics import median
from typing import Any

import numpy as np

from pipelines.measure.alternating import spread
from pipelines.measure.cost import predict
from pipelines.measure.methods import OURS
from pipelines.measure.report.rows import BASELINE
from pipelines.measure.speed_memory import memory_key
from pipelines.measure.speed_plan import Plan, Setting
from pipelines.run.results import Row
from videoprune.cost.operations import Cost, flop_ideal
from videoprune.cost.shapes import ModelShape
from videoprune.eval.metrics import clustered_interval

_STAGES = ("decode", "preprocess", "encode", "prune", "fuse", "prefill", "generate", "first_token", "total")
_RATIOS = ("first_token", "total", "encode", "prefill")


def report_rows(
    plan: Plan,
    answers: dict[str, Row],
    times: dict[str, Row],
    memory: dict[str, Row],
    shape: ModelShape,
    *,
    text_tokens: int,
    new_tokens: int,
    size: tuple[int, int] | None,
    bytes_per_value: int,
) -> list[dict[str, Any]]:
    """A row for each setting, number of frames and concurrency that has times."""
    rows = []
    for frames in plan.frames:
        asked = {s.label: _of(answers, frames=frames, setting=s.label) for s in plan.settings if plan.answers}
        for concurrency in plan.concurrency:
            timed = {
                s.label: _of(times, frames=frames, setting=s.label, concurrency=concurrency)
                for s in plan.settings
            }
            costs: dict[str, Cost] = {}
            for setting in plan.settings:
                runs = timed[setting.label]
                if not runs:
                    continue
                tokens = _tokens([r for r in asked.get(setting.label, []) if "tokens" in r] or runs)
                costs[setting.label] = predict(
                    shape,
                    frames,
                    tokens["dense"] + text_tokens,
                    setting.prune,
                    size=size,
                    question_tokens=text_tokens,
                    visual_by_layer=tokens["llm_layers"],
                    bytes_per_value=bytes_per_value,
                )
                row = _row(setting, frames, concurrency, runs, timed.get(BASELINE, []), tokens)
                row |= _costs(
                    costs[setting.label], costs.get(BASELINE), row["speedup"]["first_token"], new_tokens
                )
                row["accuracy"] = _accuracy(asked.get(setting.label, []), asked.get(BASELINE, []))
                held = memory.get(memory_key(setting.label, frames, concurrency), {})
                row["peak_bytes"] = held.get("peak_bytes")
                row["encode_once_ask_many"] = _many(asked.get(setting.label, []))
                rows.append(row)
    return rows


def _row(
    setting: Setting, frames: int, concurrency: int, runs: list[Row], base: list[Row], tokens: dict[str, Any]
) -> dict[str, Any]:
    seconds = {s: spread([r[s] / concurrency for r in runs]) for s in _STAGES if s in runs[0]}
    same = {r["run"]: r for r in base}
    pairs = [(same[r["run"]], r) for r in runs if r["run"] in same]
    return {
        "method": setting.method,
        "retain": setting.retain,
        "retention": tokens.pop("retention"),
        "frames": frames,
        "concurrency": concurrency,
        "ours": setting.method in OURS,
        "seconds": seconds,
        "runs": len(runs),
        "questions_per_second": 1 / seconds["total"]["median"],
        "speedup": {
            name: median(a[name] / b[name] if b[name] else 1.0 for a, b in pairs) if pairs else None
            for name in _RATIOS
        },
        "tokens": tokens,
        "config": setting.prune.as_dict(),
        "digest": setting.prune.digest(),
    }


def _costs(cost: Cost, dense: Cost | None, faster: float | None, new_tokens: int) -> dict[str, Any]:
    ideal = flop_ideal(dense, cost) if dense is not None else None
    return {
        "flops": cost.as_dict(new_tokens),
        "flops_by_layer": list(cost.prefill),
        "kv_bytes": cost.kv_bytes,
        "flop_ideal": ideal,
        "share_of_ideal": faster / ideal if ideal and faster else None,
    }


def _accuracy(rows: list[Row], base: list[Row]) -> dict[str, Any]:
    """Both denominators: all questions, and those with an answer that could be read."""
    if not rows:
        return {
            "all": None,
            "answered": None,
            "ci95": None,
            "agreement": None,
            "parse_failures": 0,
            "questions": 0,
        }
    right = [float(r["correct"]) for r in rows]
    parsed = [r for r in rows if r.get("prediction")]
    said = {r["question"]: r.get("prediction") for r in base}
    same = [r.get("prediction") == said[r["question"]] for r in rows if r["question"] in said]
    return {
        "all": sum(right) / len(right),
        "answered": sum(r["correct"] for r in parsed) / len(parsed) if parsed else None,
        "ci95": list(clustered_interval(right, [r["video"] for r in rows])),
        "agreement": sum(same) / len(same) if same else None,
        "parse_failures": sum(r["outcome"] != "failed" and not r.get("prediction") for r in rows),
        "failed": sum(r["outcome"] == "failed" for r in rows),
        "questions": len(rows),
    }


def _many(rows: list[Row]) -> dict[str, Any] | None:
    found = [r for r in rows if "seconds_per_question" in r]
    if not found:
        return None
    return {
        "questions": median(r["asked"] for r in found),
        "seconds_per_question": median(r["seconds_per_question"] for r in found),
    }


def _tokens(rows: list[Row]) -> dict[str, Any]:
    """Means over rows; layers one by one."""
    seen = [r["tokens"] for r in rows]
    return {
        "dense": round(float(np.mean([t["dense"] for t in seen]))),
        "encoder": float(np.mean([t["encoder"] for t in seen])),
        "fused": float(np.mean([t["fused"] for t in seen])),
        "llm_layers": np.mean([t["llm_layers"] for t in seen], axis=0).round(2).tolist(),
        "retention": float(np.mean([t["retention"] for t in seen])),
    }


def _of(rows: dict[str, Row], **wanted: Any) -> list[Row]:
    return [r for r in rows.values() if all(r[k] == v for k, v in wanted.items())]
