"""Runs every setting on the same decoded frames, in turn, and keeps what it saw: answers, times, tokens, memory.

Three files that only grow: answers.jsonl (a line per setting and question), times.jsonl (a line per setting and timed
run) and memory.jsonl (a line per setting). A run that was stopped goes on with the first round that is not whole. What
takes too much memory is a line with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.measure.calls import Calls, ReadClip, read_clip
from pipelines.measure.memory import TooMuchMemoryError, forget_cache, memory_limits
from pipelines.measure.plan import Plan
from pipelines.measure.timed import decoder, device_of, peak_of, ready, timed, tokens_of
from pipelines.measure.turns import explained, rotated, take_turns
from pipelines.run.results import Results
from pipelines.run.row_index import Row, RowIndex
from pipelines.run.rows import failed_rows, question_fields
from pipelines.run.stages import ClipItem, DecodeStage, Failure
from videoprune.clock import now
from videoprune.engine import Engine
from videoprune.eval.benchmarks.base import Recipe
from videoprune.result_row import ResultRow, result_row
from videoprune.types import Answer, Sample

BATCH = 8  # questions about one clip in a call
Mark = Callable[[ResultRow], ResultRow]


def run_plan(
    engine: Engine,
    items: Sequence[ClipItem],
    plan: Plan,
    out: Path,
    *,
    recipe: Recipe | None = None,
    mark: Mark | None = None,
    restart: bool = False,
    advance: Callable[[int], None] = lambda steps: None,
) -> None:
    """Fill answers.jsonl, times.jsonl and memory.jsonl in `out`.

    recipe: how a benchmark shows its videos. mark: what its protocol reads from an answer. advance: told how many of
    `plan.steps` are done.
    """
    with ExitStack() as stack:
        answers, times, memory = (
            stack.enter_context(Results(out / f"{name}.jsonl", restart=restart))
            for name in ("answers", "times", "memory")
        )
        for frames in plan.frames:
            decode = stack.enter_context(closing(decoder(engine, frames, recipe)))
            run = _Run(engine, items, plan, frames, decode, mark)
            for count in plan.concurrency:
                calls = Calls(decode, items, count)
                run.take_times(calls, times)
                run.take_memory(calls, times, memory)
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
    mark: Mark | None

    def ready(self, label: str) -> Engine:
        return ready(self.engine, self.plan.setting(label))

    def take_times(self, calls: Calls, times: Results) -> None:
        """Every round that is not whole, anew for all settings: its ratios are paired."""
        plan = self.plan
        key = lambda label, number: f"{memory_key(label, self.frames, calls.count)} {number}"  # noqa: E731
        labels = [label for label in plan.labels if key(label, "failed") not in times.index]
        wanted = [r for r in range(plan.runs) if any(key(label, r) not in times.index for label in labels)]
        if not wanted:
            return

        def once(label: str, number: int) -> dict[str, Any] | None:
            call = calls.of(wanted[max(number, 0)])
            return timed(self.ready(label), call, plan.max_new_tokens) if call else None

        for turn in take_turns(labels, once, runs=len(wanted), refusals=(TooMuchMemoryError,)):
            named = {**self.named(turn.label), "concurrency": calls.count}
            if turn.reason:
                forget_cache()
                failed = {"question_id": key(turn.label, "failed"), "reason": turn.reason}
                times.append([failed | named])
            elif turn.value is not None:
                number = wanted[turn.number]
                times.append([{"question_id": key(turn.label, number), "run": number} | named | turn.value])

    def take_memory(self, calls: Calls, times: Results, memory: Results) -> None:
        """Every setting once more, untimed, so that measuring memory slows no timed run: bytes, or null."""
        for label in self.plan.labels:
            key = memory_key(label, self.frames, calls.count)
            failed = f"{key} failed" in times.index
            call = calls.of(0) if key not in memory.index and not failed else None
            if call is None:
                continue
            engine = self.ready(label)
            named = {"question_id": key, **self.named(label), "concurrency": calls.count}
            try:
                peak, reason = peak_of(engine, call, self.plan.max_new_tokens), ""
            except TooMuchMemoryError as error:
                peak, reason = None, explained(error)
            if reason:
                forget_cache()
            memory.append([named | {"peak_bytes": peak} | ({"reason": reason} if reason else {})])

    def ask(self, answers: Results, advance: Callable[[int], None]) -> None:
        """All questions about every clip, which each setting encodes once. What cannot be asked is a row with its
        reason, and tried again by the next run."""
        for index, item in enumerate(self.items):
            turns = rotated(self.plan.labels, index)
            missing = [label for label in turns if is_open(label, self.frames, item.samples, answers.index)]
            if missing:
                clip = read_clip(self.decode, item)
                for label in missing:
                    rows = self.asked(label, item, clip)
                    answers.append([row for row in rows if not answers.index.failed_so(row)])
            advance(1)

    def asked(self, label: str, item: ClipItem, clip: ReadClip | Failure) -> list[Row]:
        if isinstance(clip, ReadClip):
            try:
                return self.answered(label, clip)
            except Exception as error:
                clip = Failure.of(error)
            forget_cache()
        rows = failed_rows(item, clip)
        return [self.row(label, s, row) for s, row in zip(item.samples, rows, strict=True)]

    def answered(self, label: str, clip: ReadClip) -> list[Row]:
        engine, samples, most = self.ready(label), clip.item.samples, self.plan.max_new_tokens
        started = now(device_of(engine))
        with memory_limits():
            answers = ask_clip(engine, clip, most)
        each = (now(device_of(engine)) - started) / len(samples)
        return [
            self.row(label, sample, said_row(sample, answer, clip))
            | {
                "seconds_per_question": each,
                "decode_seconds_per_question": clip.seconds / len(samples),
                "asked": len(samples),
                "tokens": tokens_of([answer]),
            }
            for sample, answer in zip(samples, answers, strict=True)
        ]

    def row(self, label: str, sample: Sample, row: ResultRow) -> Row:
        return answer_line(label, self.frames, sample, row, self.mark)

    def named(self, label: str) -> Row:
        return {"setting": label, "frames": self.frames}


def ask_clip(engine: Engine, clip: ReadClip, max_new_tokens: int) -> list[Answer]:
    """Encode once, ask all questions."""
    encoded, samples = engine.encode([clip.frames]), clip.item.samples
    answers: list[Answer] = []
    for start in range(0, len(samples), BATCH):
        answers += engine.answer(encoded, samples[start : start + BATCH], max_new_tokens=max_new_tokens)
    return answers


def answer_key(label: str, frames: int, sample: Sample) -> str:
    return f"{label} {frames} {sample.question_id}"


def is_open(label: str, frames: int, samples: Sequence[Sample], known: RowIndex) -> bool:
    """Whether a clip has a question that a setting has not answered. known: of answers.jsonl."""
    return not all(known.answered(answer_key(label, frames, s)) for s in samples)


def answer_line(label: str, frames: int, sample: Sample, row: ResultRow, mark: Mark | None) -> Row:
    """A line of answers.jsonl: what varies with the setting; the rest of the question stands in the benchmark. mark:
    what the benchmark's protocol reads from the answer."""
    row = mark(row) if mark else row
    said = ("text", "prediction", "answer", "correct", "outcome", "reason", "traceback")
    more = {name: value for name, value in row.items() if name in said and value != ""}
    key = {"question_id": answer_key(label, frames, sample), "setting": label, "frames": frames}
    return key | {"video": sample.video, "question": sample.question_id, "prediction": ""} | more


def said_row(sample: Sample, answer: Answer, clip: ReadClip) -> ResultRow:
    """An answer as a row that a benchmark can mark. An open question without metrics is right by its text."""
    if sample.options:
        right = answer.choice == sample.answer
    else:
        right = answer.text.strip().lower() == sample.answer.strip().lower()
    found = {
        "text": answer.text,
        "prediction": answer.choice if sample.options else answer.text,
        "correct": right,
        "outcome": clip.frames.outcome.kind,
        "reason": clip.frames.outcome.reason,
        "backend": clip.frames.backend,
        "fallback_reason": clip.frames.fallback_reason,
        "tokens": None,
        "seconds": {},
    }
    return result_row(question_fields(sample) | found)


def memory_key(label: str, frames: int, concurrency: int) -> str:
    return f"{label} {frames} {concurrency}"
