"""From the rows of a speed run to the figures of its report: medians, paired ratios, accuracy, operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from pipelines.measure.cost import Prompt, predict
from pipelines.measure.methods import OURS
from pipelines.measure.plan import BASELINE, Plan, Setting
from pipelines.measure.run import memory_key
from pipelines.measure.turns import spread
from pipelines.run.results import Row, read_rows
from videoprune.cost.operations import Cost, flop_ideal
from videoprune.cost.shapes import ModelShape
from videoprune.eval.metrics import clustered_interval

_STAGES = ("decode", "preprocess", "encode", "prune", "fuse", "prefill", "generate", "first_token", "total")
_RATIOS = ("first_token", "total", "encode", "prefill")


@dataclass(frozen=True)
class Seen:
    """Rows of a run's three files."""

    answers: list[Row]
    times: list[Row]
    memory: dict[str, Row]

    @classmethod
    def read(cls, out: Path) -> Seen:
        answers, times, memory = (read_rows(out / f"{n}.jsonl") for n in ("answers", "times", "memory"))
        return cls(list(answers.values()), list(times.values()), memory)


@dataclass(frozen=True)
class Reckoning:
    """What operations are reckoned from. text: tokens of the median prompt that are not visual. new_tokens: of an
    answer. size: height and width of frames, for encoders that take any."""

    shape: ModelShape
    text: int
    new_tokens: int
    size: tuple[int, int] | None
    bytes_per_value: int

    def cost(self, setting: Setting, frames: int, tokens: Mapping[str, Any]) -> Cost:
        prompt = Prompt(frames, tokens["dense"] + self.text, self.text, self.size)
        layers, width = tokens["llm_layers"], self.bytes_per_value
        return predict(self.shape, prompt, setting.config, visual_by_layer=layers, bytes_per_value=width)


def report_rows(plan: Plan, seen: Seen, reckoning: Reckoning) -> list[dict[str, Any]]:
    """A row for each setting, number of frames and concurrency that has times."""
    rows = []
    for frames in plan.frames:
        asked = {label: _of(seen.answers, frames=frames, setting=label) for label in plan.labels}
        for count in plan.concurrency:
            same = [r for r in seen.times if (r["frames"], r["concurrency"]) == (frames, count)]
            base = _of(same, setting=BASELINE)
            dense = None
            for setting in plan.settings:
                runs, answers = _of(same, setting=setting.label), asked[setting.label]
                if not runs:
                    continue
                tokens = _tokens([r for r in answers if "tokens" in r] or runs)
                cost = reckoning.cost(setting, frames, tokens)
                dense = cost if setting.label == BASELINE else dense
                row = _row(setting, runs, base, tokens)
                row |= _costs(cost, dense, row["speedup"]["first_token"], reckoning.new_tokens)
                row["accuracy"] = _accuracy(answers, asked[BASELINE])
                held = seen.memory.get(memory_key(setting.label, frames, count), {})
                row["peak_bytes"] = held.get("peak_bytes")
                row["encode_once_ask_many"] = _many(answers)
                rows.append(row)
    return rows


def _row(setting: Setting, runs: list[Row], base: list[Row], tokens: dict[str, Any]) -> dict[str, Any]:
    frames, concurrency = runs[0]["frames"], runs[0]["concurrency"]
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
        "config": setting.config.as_dict(),
        "digest": setting.config.digest(),
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
            **dict.fromkeys(("all", "answered", "ci95", "agreement")),
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


def _of(rows: Sequence[Row], **wanted: Any) -> list[Row]:
    return [r for r in rows if all(r[k] == v for k, v in wanted.items())]
