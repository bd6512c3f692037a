"""Runs every setting on the same decoded frames, in turn, and keeps what it saw: answers, times, tokens, memory.

Three files that only grow: answers.jsonl (a line per setting and question), times.jsonl (a line per setting and timed
run) and memory.jsonl (a line per setting). A run that was stopped goes on with the first clip that is not whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from pipelines.measure.alternating import rotated
from pipelines.measure.speed_memory import measure_memory, memory_is_known
from pipelines.measure.speed_plan import Plan, Setting, prepared
from pipelines.run.results import Results, Row
from pipelines.run.stages import ClipItem, DecodedClip, DecodeStage
from videoprune.clock import now
from videoprune.engine import AnyEngine
from videoprune.types import Answer, Outcome, Sample, VideoFrames


def run_plan(
    engine: AnyEngine,
    items: Sequence[ClipItem],
    plan: Plan,
    out: Path,
    *,
    restart: bool = False,
    advance: Callable[[int], None] = lambda steps: None,
) -> None:
    """Fill answers.jsonl, times.jsonl and memory.jsonl in `out`. advance: told how many clips are done, or were."""
    with (
        Results(out / "answers.jsonl", restart=restart) as answers,
        Results(out / "times.jsonl", restart=restart) as times,
        Results(out / "memory.jsonl", restart=restart) as memory,
    ):
        for frames in plan.frames:
            with closing(DecodeStage(frames, engine.frame_size)) as decode:
                decode.setup()
                _run_clips(engine, items, plan, frames, decode, answers, times, advance)
                for count in plan.concurrency:
                    _run_together(engine, items, plan, frames, count, decode, times, memory)


def _run_clips(
    engine: AnyEngine,
    items: Sequence[ClipItem],
    plan: Plan,
    frames: int,
    decode: DecodeStage,
    answers: Results,
    times: Results,
    advance: Callable[[int], None],
) -> None:
    warm = False
    for index, item in enumerate(items):
        timed = index < plan.runs and 1 in plan.concurrency
        if not plan.answers and not timed:
            break
        if _done(plan, item, frames, index, timed, answers, times):
            advance(1)
            continue
        decoded = decode.process(item)
        if isinstance(decoded.frames, Outcome):
            if plan.answers:
                answers.append(_failed(plan, decoded, frames, decoded.frames.reason))
            advance(1)
            continue
        clip = decoded.frames
        if timed and not warm:  # the first pass of every setting is for caches and allocators
            for setting in plan.settings:
                _time(prepared(engine, setting), [clip], [item.samples[0]], plan)
            warm = True
        for setting in rotated(plan.settings, index):
            ready = prepared(engine, setting)
            if timed:
                row = _time(ready, [clip], [item.samples[0]], plan) | {"decode": decoded.seconds}
                times.append([_timed_row(setting, frames, 1, index, row)])
            if plan.answers:
                answers.append(_ask_all(ready, clip, item.samples, setting, frames))
        advance(1)


def _run_together(
    engine: AnyEngine,
    items: Sequence[ClipItem],
    plan: Plan,
    frames: int,
    count: int,
    decode: DecodeStage,
    times: Results,
    memory: Results,
) -> None:
    """`count` clips in a call, a question each: times where they are several (one was timed before), and memory."""
    wanted = [(s, r) for r in range(plan.runs) for s in rotated(plan.settings, r)]
    timed = count == 1 or all(_time_key(s.label, frames, count, r) in times.rows for s, r in wanted)
    if timed and memory_is_known(plan, frames, count, memory):
        return
    clips, samples = _clips_of_a_call(items, frames, count, decode)
    if not clips:
        return
    if not timed:
        for setting in plan.settings:
            _time(prepared(engine, setting), clips, samples, plan)
        for setting, run in wanted:
            row = _time(prepared(engine, setting), clips, samples, plan)
            times.append([_timed_row(setting, frames, count, run, row)])
    measure_memory(engine, clips, samples, plan, frames, memory)


def _clips_of_a_call(
    items: Sequence[ClipItem], frames: int, count: int, decode: DecodeStage
) -> tuple[list[VideoFrames], list[Sample]]:
    """`count` clips with a question each; together they must have as many frames. Empty if none can be read."""
    clips: list[VideoFrames] = []
    samples: list[Sample] = []
    for item in items:
        if len(clips) == count:
            break
        clip = decode.process(item).frames
        if not isinstance(clip, Outcome) and (count == 1 or len(clip) == frames):
            clips.append(clip)
            samples.append(item.samples[0])
    # Too few: the first again.
    return list(islice(cycle(clips), count)), list(islice(cycle(samples), count))


def _time(
    engine: AnyEngine, clips: Sequence[VideoFrames], samples: Sequence[Sample], plan: Plan
) -> dict[str, Any]:
    """Seconds by stage of one call, from decoded frames to the whole answer."""
    started = now(engine.device)
    tokens: Any
    tokens, seconds = engine.encode(clips)
    encoded = now(engine.device)
    first = engine.answer(tokens, samples, max_new_tokens=1)
    answered = now(engine.device)
    preprocess, inside = engine.parts["preprocess"], engine.parts["prune"]
    chosen = sum(a.trace.seconds["llm_prune"] for a in first)
    fuse = seconds["fuse"]
    found = {
        "preprocess": preprocess,
        "encode": encoded - started - preprocess - fuse - inside,
        "fuse": fuse,
        "prune": inside + chosen,
        "prefill": answered - encoded - chosen,
        "first_token": answered - started,
    }
    whole = engine.answer(tokens, samples, max_new_tokens=plan.max_new_tokens)
    spent = now(engine.device) - answered
    total = encoded - started + spent
    generate = max(0.0, total - (answered - started))
    return found | {"generate": generate, "total": total, "tokens": _tokens(whole[0])}


def _ask_all(
    engine: AnyEngine, clip: VideoFrames, samples: Sequence[Sample], setting: Setting, frames: int
) -> list[Row]:
    """All questions about one clip, which is encoded once."""
    started = now(engine.device)
    tokens: Any
    tokens, _ = engine.encode([clip])
    answers = engine.answer(tokens, list(samples))
    each = (now(engine.device) - started) / len(samples)
    return [
        {
            "question_id": _answer_key(setting.label, frames, sample),
            "setting": setting.label,
            "frames": frames,
            "video": sample.video,
            "question": sample.question_id,
            "prediction": answer.choice if sample.options else answer.text,
            "answer": sample.answer,
            "correct": _correct(sample, answer),
            "outcome": "complete",
            "seconds_per_question": each,
            "asked": len(samples),
            "tokens": _tokens(answer),
        }
        for sample, answer in zip(samples, answers, strict=True)
    ]


def _correct(sample: Sample, answer: Answer) -> bool:
    if sample.options:
        return answer.choice == sample.answer
    return answer.text.strip().lower() == sample.answer.strip().lower()


def _tokens(answer: Answer) -> dict[str, Any]:
    trace = answer.trace
    return {
        "dense": trace.dense,
        "encoder": sum(after for _, after in trace.encoder.values()),
        "fused": trace.fused,
        "llm_layers": list(trace.llm_layers),
        "retention": trace.retention,
    }


def _failed(plan: Plan, decoded: DecodedClip, frames: int, reason: str) -> list[Row]:
    """A clip that gives no frame is a failed row of every setting."""
    return [
        {
            "question_id": _answer_key(s.label, frames, sample),
            "setting": s.label,
            "frames": frames,
            "video": decoded.item.video,
            "question": sample.question_id,
            "outcome": "failed",
            "reason": reason,
            "correct": False,
        }
        for s in plan.settings
        for sample in decoded.item.samples
    ]


def _done(
    plan: Plan, item: ClipItem, frames: int, index: int, timed: bool, answers: Results, times: Results
) -> bool:
    for setting in plan.settings:
        if timed and _time_key(setting.label, frames, 1, index) not in times.rows:
            return False
        if plan.answers and any(
            _answer_key(setting.label, frames, s) not in answers.rows for s in item.samples
        ):
            return False
    return True


def _timed_row(setting: Setting, frames: int, concurrency: int, run: int, seconds: dict[str, Any]) -> Row:
    return {
        "question_id": _time_key(setting.label, frames, concurrency, run),
        "setting": setting.label,
        "frames": frames,
        "concurrency": concurrency,
        "run": run,
        **seconds,
    }


def _answer_key(label: str, frames: int, sample: Sample) -> str:
    return f"{label} {frames} {sample.question_id}"


def _time_key(label: str, frames: int, concurrency: int, run: int) -> str:
    return f"{label} {frames} {concurrency} {run}"
