"""From the rows of a speed run to the figures of its report: medians, paired ratios, accuracy, operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from pipelines.measure.cost import Prompt, predict
from pipelines.measure.methods import OURS
from pipelines.measure.plan import BASELINE, Plan, Setting, is_at
from pipelines.measure.run import memory_key
from pipelines.measure.scoring import Answered, Scoring, accuracy, among_best, no_accuracy, scores
from pipelines.measure.turns import spread
from pipelines.run.results import Row, read_rows
from videoprune.cost.operations import Cost, flop_ideal
from videoprune.cost.shapes import ModelShape

_STAGES = (
    *("decode", "preprocess", "encode", "prune", "fuse", "prefill", "generate"),
    *("first_token", "total", "end_to_end"),
)
_RATIOS = ("first_token", "total", "end_to_end", "encode", "prefill")


@dataclass(frozen=True)
class Seen:
    """Rows of a run's three files. failed: those of times.jsonl that say why a setting could not be timed."""

    answers: list[Row]
    times: list[Row]
    memory: dict[str, Row]
    failed: list[Row] = field(default_factory=list)

    @classmethod
    def read(cls, out: Path) -> Seen:
        answers, times, memory = (read_rows(out / f"{n}.jsonl") for n in ("answers", "times", "memory"))
        failed = [r for r in times.values() if "reason" in r]
        return cls(list(answers.values()), [r for r in times.values() if "reason" not in r], memory, failed)

    def not_measured(self, plan: Plan) -> list[dict[str, str]]:
        """The plan's steps that took too much memory, each with its reason."""
        return [
            {
                "method": f"{r['setting']}, {r['frames']} frames, {r['concurrency']} at once",
                "reason": r["reason"],
            }
            for r in self.failed
            if r["setting"] in plan.labels
            and r["frames"] in plan.frames
            and r["concurrency"] in plan.concurrency
        ]


@dataclass(frozen=True)
class Reckoning:
    """What operations are reckoned from. text: tokens of the median prompt that are not visual. new_tokens: of an
    answer. size: height and width of frames, for encoders that take any. lost: why operations could not be reckoned."""

    shape: ModelShape
    text: int
    new_tokens: int
    size: tuple[int, int] | None
    bytes_per_value: int
    lost: list[str] = field(default_factory=list)

    def cost(self, setting: Setting, frames: int, tokens: Mapping[str, Any]) -> Cost | None:
        """None, with the reason kept, for frames that the shape cannot be reckoned with: of any size, or a grid."""
        prompt = Prompt(frames, tokens["dense"] + self.text, self.text, self.size)
        layers, width = tokens["llm_layers"], self.bytes_per_value
        try:
            return predict(self.shape, prompt, setting.config, visual_by_layer=layers, bytes_per_value=width)
        except ValueError as error:
            if str(error) not in self.lost:
                self.lost.append(str(error))
            return None


def report_rows(
    plan: Plan, seen: Seen, reckoning: Reckoning, scoring: Scoring | None = None
) -> list[dict[str, Any]]:
    """A row for each setting, number of frames and concurrency that has times. scoring: None: nothing was asked."""
    rows = []
    now = {s.question_id for s in scoring.samples} if scoring else set()  # an earlier run may have asked more
    answered = [r for r in seen.answers if r["question"] in now]
    for frames in plan.frames:
        asked = {label: _of(answered, frames=frames, setting=label) for label in plan.labels}
        worth = _worth(plan, frames, asked, scoring) if scoring else {}
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
                row |= worth.get(setting.label) or {"accuracy": no_accuracy()}
                held = seen.memory.get(memory_key(setting.label, frames, count), {})
                row["peak_bytes"] = held.get("peak_bytes")
                row["encode_once_ask_many"] = _many(answers)
                rows.append(row)
    return rows


def _worth(
    plan: Plan, frames: int, asked: Mapping[str, list[Row]], scoring: Scoring
) -> dict[str, dict[str, Any]]:
    """By setting: accuracy, scores, and whether it is among the best at its retention."""
    found = {
        label: run for label, rows in asked.items() if (run := scoring.once(frames, label, rows)) is not None
    }
    base = found.get(BASELINE)
    best = _best(plan, asked, found, scoring)
    return {
        label: {
            "accuracy": accuracy(run, base, scoring),
            "scores": scores(run, base),
            "among_best": label in best,
        }
        for label, run in found.items()
    }


def _best(
    plan: Plan, asked: Mapping[str, list[Row]], found: Mapping[str, Answered], scoring: Scoring
) -> set[str]:
    """At each wanted retention; what was measured above it had more tokens than the others and is left out."""
    best: set[str] = set()
    videos = next((run.videos for run in found.values()), [])
    for wanted in {s.retain for s in plan.settings if s.method != BASELINE}:
        pool = {}
        for setting in (s for s in plan.settings if s.retain == wanted and s.method != BASELINE):
            run = found.get(setting.label)
            seen = [r for r in asked[setting.label] if "tokens" in r]
            if run is None or not seen or side(setting, _tokens(seen)["retention"]) == "above":
                continue
            pool[setting.label] = run.counts[scoring.compared(run.counts)]
        best |= among_best(pool, videos)
    return best


def side(setting: Setting, retention: float) -> str:
    """Of a setting whose share was searched for: whether it was measured below, above or at the wanted retention."""
    if setting.share is None:
        return ""
    if is_at(retention, setting.retain):
        return "at"
    return "below" if retention < setting.retain else "above"


def _row(setting: Setting, runs: list[Row], base: list[Row], tokens: dict[str, Any]) -> dict[str, Any]:
    frames, concurrency = runs[0]["frames"], runs[0]["concurrency"]
    seconds = {s: spread([r[s] / concurrency for r in runs]) for s in _STAGES if s in runs[0]}
    same = {r["run"]: r for r in base}
    pairs = [(same[r["run"]], r) for r in runs if r["run"] in same]
    retention = tokens.pop("retention")
    return {
        "method": setting.method,
        "retain": setting.retain,
        "retention": retention,
        "side": side(setting, retention),
        "share": setting.share,
        "frames": frames,
        "concurrency": concurrency,
        "ours": setting.method in OURS,
        "seconds": seconds,
        "runs": len(runs),
        "questions_per_second": 1 / seconds["total"]["median"],
        "speedup": {
            name: median(a[name] / b[name] if b[name] else 1.0 for a, b in pairs) if pairs else None
            for name in _RATIOS
            if name in runs[0]
        },
        "tokens": tokens,
        "config": setting.config.as_dict(),
        "digest": setting.config.digest(),
    }


def _costs(cost: Cost | None, dense: Cost | None, faster: float | None, new_tokens: int) -> dict[str, Any]:
    if cost is None:
        return {}
    ideal = flop_ideal(dense, cost) if dense is not None else None
    return {
        "flops": cost.as_dict(new_tokens),
        "flops_by_layer": list(cost.prefill),
        "kv_bytes": cost.kv_bytes,
        "flop_ideal": ideal,
        "share_of_ideal": faster / ideal if ideal and faster else None,
    }


def _many(rows: list[Row]) -> dict[str, Any] | None:
    found = [r for r in rows if "seconds_per_question" in r]
    if not found:
        return None
    return {
        "questions": median(r["asked"] for r in found),
        "seconds_per_question": median(r["seconds_per_question"] for r in found),
        "decode_per_question": median(r.get("decode_seconds_per_question", 0.0) for r in found),
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
