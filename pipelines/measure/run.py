"""Runs every setting on the same decoded frames, in turn, and keeps what it saw: answers, times, tokens, memory.

Three files that only grow: answers.jsonl (a line per setting and question), times.jsonl (a line per setting and timed
run) and memory.jsonl (a line per setting). A run that was stopped goes on with the first round that is not whole.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch

from pipelines.measure.memory import warm_peak
from pipelines.measure.plan import Plan, Setting
from pipelines.measure.turns import WARM_UP_TOKENS, rotated, take_turns
from pipelines.run.results import Results, Row
from pipelines.run.stages import ClipItem, DecodeStage, Failure
from videoprune.clock import now
from videoprune.engine import Engine
from videoprune.types import Answer, Sample, VideoFrames


def run_plan(
    engine: Engine,
    items: Sequence[ClipItem],
    plan: Plan,
    out: Path,
    *,
    restart: bool = False,
    advance: Callable[[int], None] = lambda steps: None,
) -> None:
    """Fill answers.jsonl, times.jsonl and memory.jsonl in `out`. advance: told how many of `plan.steps` are done."""
    with ExitStack() as stack:
        answers, times, memory = (
            stack.enter_context(Results(out / f"{name}.jsonl", restart=restart))
            for name in ("answers", "times", "memory")
        )
        for frames in plan.frames:
            decode = stack.enter_context(closing(DecodeStage(frames, engine.frame_size)))
            decode.setup()
            run = _Run(engine, items, plan, frames, decode)
            for count in plan.concurrency:
                calls = _Calls(run, count)
                run.take_times(calls, times)
                run.take_memory(calls, memory)
                advance(plan.runs)
            if plan.answers:
                run.ask(answers, advance)


@dataclass(frozen=True)
class _Run:
    """What is measured with one number of frames."""

    engine: Engine
    items: Sequence[ClipItem]
    plan: Plan
    frames: int
    decode: DecodeStage

    def ready(self, setting: Setting) -> Engine:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that lambda is not calibrated is said once, before
            return self.engine.with_prune(setting.config)

    def take_times(self, calls: _Calls, times: Results) -> None:
        """Every round that is not whole, anew for all settings: its ratios are paired."""
        plan = self.plan
        key = lambda label, number: f"{label} {self.frames} {calls.count} {number}"  # noqa: E731
        wanted = [
            r for r in range(plan.runs) if any(key(label, r) not in times.rows for label in plan.labels)
        ]
        if not wanted:
            return

        def once(label: str, number: int) -> dict[str, Any] | None:
            call = calls.of(wanted[number]) if number >= 0 else calls.any(plan.runs)
            return self.time(self.ready(plan.setting(label)), call) if call else None

        for turn in take_turns(plan.labels, once, runs=len(wanted)):
            number = wanted[turn.number]
            if turn.value is not None:
                named = {"question_id": key(turn.label, number), "run": number, **self.named(turn.label)}
                times.append([named | {"concurrency": calls.count} | turn.value])

    def take_memory(self, calls: _Calls, memory: Results) -> None:
        """Every setting once more, untimed, so that measuring memory slows no timed run: bytes, or null."""
        for label in self.plan.labels:
            key = memory_key(label, self.frames, calls.count)
            call = calls.any(self.plan.runs) if key not in memory.rows else None
            if call is None:
                continue
            ready = self.ready(self.plan.setting(label))
            peak = warm_peak(lambda ready=ready, call=call: self.whole(ready, call), _device(ready))  # type: ignore[misc]
            named = {"question_id": key, **self.named(label), "concurrency": calls.count}
            memory.append([named | {"peak_bytes": peak}])

    def ask(self, answers: Results, advance: Callable[[int], None]) -> None:
        """All questions about every clip, which each setting encodes once. A clip without frames is failed rows."""
        for index, item in enumerate(self.items):
            keys = [self.answer_key(label, s) for label in self.plan.labels for s in item.samples]
            if any(key not in answers.rows for key in keys):
                clip = self.decode.process(item).frames
                for label in rotated(self.plan.labels, index):
                    answers.append(
                        self.failed(label, item, clip)
                        if isinstance(clip, Failure)
                        else self.asked(label, item, clip)
                    )
            advance(1)

    def time(self, engine: Engine, call: _Call) -> dict[str, Any]:
        """Seconds by stage of one call, from decoded frames to the whole answer. The first token is asked for alone."""
        device = _device(engine)
        started = now(device)
        encoded = engine.encode(call.clips)
        encoded_at = now(device)
        first = engine.answer(encoded, call.samples, max_new_tokens=1)
        answered = now(device)
        whole = engine.answer(encoded, call.samples, max_new_tokens=self.plan.max_new_tokens)
        total = encoded_at - started + now(device) - answered
        part = _sums([*(e.trace.seconds for e in encoded), *(a.trace.seconds for a in first)])
        decode = {} if call.decode_seconds is None else {"decode": call.decode_seconds}
        return {
            **decode,
            "preprocess": part["preprocess"],
            "encode": part["encode"],
            "prune": part["encode_prune"] + part["llm_prune"],
            "fuse": part["fuse"],
            "prefill": answered - encoded_at - part["llm_prune"],
            "first_token": answered - started,
            "generate": max(0.0, total - (answered - started)),
            "total": total,
            "tokens": _tokens(whole[0]),
        }

    def whole(self, engine: Engine, call: _Call) -> list[Answer]:
        most = max(WARM_UP_TOKENS, self.plan.max_new_tokens)
        return engine.answer(engine.encode(call.clips), call.samples, max_new_tokens=most)

    def named(self, label: str) -> Row:
        return {"setting": label, "frames": self.frames}

    def answer_key(self, label: str, sample: Sample) -> str:
        return f"{label} {self.frames} {sample.question_id}"

    def asked(self, label: str, item: ClipItem, clip: VideoFrames) -> list[Row]:
        engine = self.ready(self.plan.setting(label))
        started = now(_device(engine))
        answers = engine.answer(engine.encode([clip]), item.samples)
        each = (now(_device(engine)) - started) / len(item.samples)
        return [
            self.question(label, sample)
            | {
                "prediction": answer.choice if sample.options else answer.text,
                "answer": sample.answer,
                "correct": _correct(sample, answer),
                "outcome": "complete",
                "seconds_per_question": each,
                "asked": len(item.samples),
                "tokens": _tokens(answer),
            }
            for sample, answer in zip(item.samples, answers, strict=True)
        ]

    def failed(self, label: str, item: ClipItem, failure: Failure) -> list[Row]:
        said = {"outcome": "failed", "reason": failure.reason, "traceback": failure.traceback}
        return [self.question(label, s) | said | {"correct": False} for s in item.samples]

    def question(self, label: str, sample: Sample) -> Row:
        key = self.answer_key(label, sample)
        asked = {"video": sample.video, "question": sample.question_id}
        return {"question_id": key, **self.named(label), **asked}


@dataclass(frozen=True)
class _Call:
    """Clips with a question each. decode_seconds: of the one clip; None where they are several."""

    clips: list[VideoFrames]
    samples: list[Sample]
    decode_seconds: float | None


class _Calls:
    """Of `count` clips. One at a time: another one in each round; several: the same in all, decoded once."""

    def __init__(self, run: _Run, count: int) -> None:
        self.run, self.count = run, count
        self._known: dict[int, _Call | None] = {}

    def of(self, number: int) -> _Call | None:
        """The call of a round; None if its clips cannot be read."""
        number = number if self.count == 1 else 0
        if number not in self._known:
            self._known[number] = self._alone(number) if self.count == 1 else self._together()
        return self._known[number]

    def any(self, rounds: int) -> _Call | None:
        """The first that can be read."""
        return next((call for number in range(rounds) if (call := self.of(number))), None)

    def _alone(self, number: int) -> _Call | None:
        item = self.run.items[number]
        decoded = self.run.decode.process(item)
        if isinstance(decoded.frames, Failure):
            return None
        return _Call([decoded.frames], [item.samples[0]], decoded.seconds)

    def _together(self) -> _Call | None:
        """Together they must have as many frames; too few: the first again."""
        found: list[tuple[VideoFrames, Sample]] = []
        for item in self.run.items:
            clip = self.run.decode.process(item).frames
            if not isinstance(clip, Failure) and len(clip) == self.run.frames:
                found.append((clip, item.samples[0]))
            if len(found) == self.count:
                break
        taken = list(islice(cycle(found), self.count))
        return _Call([c for c, _ in taken], [s for _, s in taken], None) if taken else None


def memory_key(label: str, frames: int, concurrency: int) -> str:
    return f"{label} {frames} {concurrency}"


def _device(engine: Engine) -> torch.device:
    return next(engine.model.parameters()).device


def _sums(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    return {stage: sum(p.get(stage, 0.0) for p in parts) for part in parts for stage in part}


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
