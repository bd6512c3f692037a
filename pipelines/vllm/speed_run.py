"""One run of `videoprune speedup --engine vllm`: a model on a benchmark's videos, figures and tables in a folder."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

from pipelines.arguments import VLLM
from pipelines.measure.asked import Asked
from pipelines.measure.asked_report import (
    answer_tokens,
    asked_facts,
    asked_meta,
    asked_scoring,
    show_tables,
    tell_failed,
)
from pipelines.measure.environment import versions
from pipelines.measure.same_run import keep_facts
from pipelines.measure.scoring import Scoring
from pipelines.run.progress import progress_bar
from pipelines.run.results import Results, model_fingerprint, read_rows, write_whole
from pipelines.run.row_index import Row
from pipelines.run.stages import DecodeStage
from pipelines.vllm.clip_files import ClipFiles
from pipelines.vllm.compared import IN_FLIGHT, compared
from pipelines.vllm.rates import Asking, requests_of_turn
from pipelines.vllm.speed_plan import VllmPlan
from pipelines.vllm.speed_rows import report_rows, speed_table
from pipelines.vllm.speed_turns import SpeedTurns
from pipelines.vllm.stage import check_kind, version
from pipelines.vllm.worker import Spec
from pipelines.vllm.worker_process import WorkerProcess
from videoprune.models.loading import RANDOM, clip_shape, model_config


def check(args: argparse.Namespace, models: Sequence[str]) -> None:
    """models: that the arguments name. Raises ValueError for arguments of `speedup` that make no sense with vLLM."""
    given = f"with --engine {VLLM}; allowed"
    if args.plan:
        raise ValueError(f"--plan {given}: a run without it")
    if args.device is not None:
        raise ValueError(f"--device={args.device} {given}: none, vLLM takes what it was built for")
    if len(args.frames or ()) > 1:
        raise ValueError(f"--frames={','.join(map(str, args.frames))} {given}: one number")
    if outside := [share for share in args.retain if not 0 < share < 1]:
        raise ValueError(f"--retain={outside[0]:g} {given}: numbers between 0 and 1")
    for model in models:
        compared(args.methods, args.retain, check_kind(model))


@dataclass(frozen=True)
class VllmSpeedRun:
    """args: of the command. out: the folder. make: the worker of a Spec, which writes what it prints to a file."""

    model: str
    args: argparse.Namespace
    asked: Asked
    out: Path
    make: Callable[[Spec, Path], Asking] = WorkerProcess
    engine: Callable[[], str] = version

    def measure(self) -> int:
        """Measure what is not there yet, and write the tables. Status 1 if a method failed or a question has no
        answer."""
        self.out.mkdir(parents=True, exist_ok=True)
        plan, refused = self._plan()
        self._keep_facts(plan)
        write_whole(self.out / "sample.json", json.dumps(self.asked.facts(), indent=1) + "\n")
        with _ended_in_order(), TemporaryDirectory(prefix="videoprune-") as folder:
            failed = self._take(plan, Path(folder))
        return self._report(plan, refused, failed)

    @property
    def is_random(self) -> bool:
        return self.model.startswith(RANDOM)

    @cached_property
    def config(self) -> Any:
        return model_config(self.model)

    def _plan(self) -> tuple[VllmPlan, list[dict[str, str]]]:
        args, recipe = self.args, self.asked.task.recipe
        settings, refused = compared(args.methods, args.retain, self.config)
        frames = args.frames[0] if args.frames else recipe.frames or clip_shape(self.model, self.config)[0]
        plan = VllmPlan(
            tuple(settings),
            tuple(sorted(args.concurrency or IN_FLIGHT)),
            args.runs,
            frames,
            answer_tokens(self.model, recipe),
            requests=args.requests,
            apart=args.one_at_a_time,
            answers=not self.is_random,
        )
        return plan, refused

    def _keep_facts(self, plan: VllmPlan) -> None:
        facts: dict[str, Any] = {
            "model": model_fingerprint(self.model),
            "engine": f"{VLLM} {self.engine()}",
            **asked_facts(self.asked),
            "frames": plan.frames,
            "max_new_tokens": plan.max_new_tokens,
            "requests": plan.requests,
            "turns": _turns(plan),
            "settings": {s.label: s.digest for s in plan.settings},
        }
        keep_facts(self.out, facts, growing="settings", restart=self.args.restart)

    def _take(self, plan: VllmPlan, folder: Path) -> dict[str, str]:
        restart, asked = self.args.restart, self.asked
        steps = len(plan.settings) * (
            len(plan.in_flight) * plan.runs + (len(asked.samples) if plan.answers else 0)
        )
        decode = DecodeStage(
            plan.frames, clip_shape(self.model, self.config)[1], **asked.task.recipe.sampling()
        )
        decode.setup()
        kept = max(plan.requests or requests_of_turn(n) for n in plan.in_flight)
        with (
            closing(decode),
            Results(self.out / "rates.jsonl", restart=restart) as rates,
            Results(self.out / "answers.jsonl", restart=restart) as answers,
            progress_bar() as bar,
        ):
            clips = ClipFiles(decode, asked.chosen, folder, kept)
            shown = bar.add_task(self.model, total=steps)
            turns = SpeedTurns(
                plan,
                clips,
                partial(self._worker, plan, clips, folder),
                rates,
                answers,
                asked.task.mark,
                lambda n: bar.advance(shown, n),
            )
            turns.take()
        return turns.failed

    def _worker(self, plan: VllmPlan, clips: ClipFiles, folder: Path, label: str) -> Asking:
        setting, read = plan.setting(label), clips.first()
        if not read:
            raise ValueError(f"{self.asked.task.title}: none of {len(clips.items)} videos can be read")
        pixels = read[0].clip.frames.pixels
        own = folder / f"worker-{plan.labels.index(label)}"
        own.mkdir(exist_ok=True)
        spec = Spec(
            self.model,
            setting.prune.as_dict(),
            setting.own,
            (pixels.shape[0], pixels.shape[1], pixels.shape[2]),
            max(plan.in_flight),
            plan.max_new_tokens,
            str(own),
            gpu=1.0 if plan.apart else 1 / len(plan.settings),
            whole=self.is_random,
        )
        return self.make(spec, self.out / f"{label}.log")

    def _report(self, plan: VllmPlan, refused: Sequence[dict[str, str]], failed: dict[str, str]) -> int:
        now = {s.question_id for s in self.asked.samples}  # an earlier run may have asked more
        answers = [r for r in read_rows(self.out / "answers.jsonl").values() if r["question"] in now]
        scoring = asked_scoring(self.asked, self.out) if plan.answers else None
        rows = report_rows(plan, list(read_rows(self.out / "rates.jsonl").values()), answers, failed, scoring)
        meta = self._meta(plan, scoring)
        results = {"meta": meta, "rows": rows, "refused": list(refused)}
        write_whole(self.out / "results.json", json.dumps(results, indent=1, ensure_ascii=False) + "\n")
        tables = _tables(results, plan)
        show_tables(tables, self.out, ["results.json", "tables.md"])
        for label, reason in failed.items():
            print(f"{label} failed: {reason}; the same command tries it again", file=sys.stderr)
        return 1 if tell_failed(rows) or failed else 0

    def _meta(self, plan: VllmPlan, scoring: Scoring | None) -> Row:
        return {
            **asked_meta(self.model, self.asked, self.args.chosen_on),
            "versions": versions() | {VLLM: self.engine()},
            "turns": _turns(plan),
            "frames": plan.frames,
            "runs": plan.runs,
            "max_new_tokens": plan.max_new_tokens,
            "requests": {str(n): plan.requests or requests_of_turn(n) for n in plan.in_flight},
            "questions": len(self.asked.samples) if plan.answers else 0,
            "notes": [f"not scored: {reason}" for reason in (scoring.lost if scoring else [])],
        }


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """SIGTERM ends what is under way as Ctrl-C does, so that workers and files go with it."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _turns(plan: VllmPlan) -> str:
    if plan.apart:
        return "one method after the other, each with the machine to itself"
    return "all methods were loaded and took turns, another one first in each run"


def _tables(results: dict[str, Any], plan: VllmPlan) -> str:
    meta = results["meta"]
    named = ", ".join(f"{name} {found}" for name, found in meta["versions"].items() if found)
    answered = (
        f"Accuracy is `{meta['metric']}` of {meta['questions']} questions, greedy, the difference paired by question."
        if meta["questions"]
        else "The weights are random: answers mean nothing and were not kept."
    )
    parts = [
        f"# {meta['model']} inside vLLM on {meta['dataset']}",
        f"{meta['sample']}. {meta['clips']}. {meta['frames']} frames a clip, answers of at most "
        f"{meta['max_new_tokens']} tokens.",
        speed_table(results["rows"], plan.in_flight).rstrip(),
        f"Requests a second with so many in flight, medians of {meta['runs']} runs; behind it how many times unpruned, "
        f"the median of the runs' ratios, lowest to highest. {meta['turns'].capitalize()}. Every request encodes its "
        f"clip: vLLM's caches of prefixes and of processed videos are off. Frames are decoded before. {answered}",
        *(f"Not possible: {r['method']}: {r['reason']}" for r in results["refused"]),
        *(f"ERROR: {r['label']}: {r['reason']}" for r in results["rows"] if r["reason"]),
        *meta["notes"],
        f"{meta['hardware']}; {named}",
        f"Settings: {meta['chosen_on']}.",
        f"`{meta['command']}`",
    ]
    return "\n\n".join(parts) + "\n"
