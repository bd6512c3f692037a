"""The memory pass of a speed run: every setting once more, untimed, so that measuring memory slows no timed run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipelines.measure.memory import peak_above
from pipelines.measure.speed_plan import Plan, prepared
from pipelines.run.results import Results
from videoprune.engine import AnyEngine
from videoprune.types import Sample, VideoFrames


def memory_is_known(plan: Plan, frames: int, concurrency: int, memory: Results) -> bool:
    return all(memory_key(s.label, frames, concurrency) in memory.rows for s in plan.settings)


def measure_memory(
    engine: AnyEngine,
    clips: Sequence[VideoFrames],
    samples: Sequence[Sample],
    plan: Plan,
    frames: int,
    memory: Results,
) -> None:
    """A row in `memory` for each setting that has none: the peak above the loaded model of one call, in bytes, or null.

    clips, samples: of the call, a question for each clip.
    """
    concurrency = len(clips)
    wanted = [s for s in plan.settings if memory_key(s.label, frames, concurrency) not in memory.rows]
    for setting in wanted:
        ready = prepared(engine, setting)
        _call(ready, clips, samples, plan)  # weights and code that the first use loads stay: they are no peak
        peak = peak_above(lambda ready=ready: _call(ready, clips, samples, plan), engine.device)  # type: ignore[misc]
        row = {
            "question_id": memory_key(setting.label, frames, concurrency),
            "setting": setting.label,
            "frames": frames,
            "concurrency": concurrency,
            "peak_bytes": peak,
        }
        memory.append([row])


def memory_key(label: str, frames: int, concurrency: int) -> str:
    return f"{label} {frames} {concurrency}"


def _call(engine: AnyEngine, clips: Sequence[VideoFrames], samples: Sequence[Sample], plan: Plan) -> None:
    tokens: Any
    tokens, _ = engine.encode(clips)
    engine.answer(tokens, samples, max_new_tokens=plan.max_new_tokens)
