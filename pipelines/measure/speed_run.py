"""One run of `videoprune speedup`: a model on a benchmark's videos, its figures in a folder, its report."""

from __future__ import annotations

import argparse
import json
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from statistics import median_high
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console

from pipelines.measure.asked import Asked
from pipelines.measure.asked_report import (
    answer_tokens,
    asked_facts,
    asked_meta,
    asked_scoring,
    show_tables,
    tell_failed,
)
from pipelines.measure.bracket import CLIPS
from pipelines.measure.calibration import clips_like
from pipelines.measure.calls import ReadClip, readable
from pipelines.measure.environment import versions
from pipelines.measure.forecast import forecast, forecast_text
from pipelines.measure.methods import method_names
from pipelines.measure.pictures import kept_pictures
from pipelines.measure.plan import Plan
from pipelines.measure.report.report import markdown_tables, write_report
from pipelines.measure.results import Reckoning, Seen, report_rows
from pipelines.measure.run import run_plan
from pipelines.measure.same_run import keep_facts
from pipelines.measure.sample import sample_line
from pipelines.measure.scoring import Scoring
from pipelines.measure.timed import decoder
from pipelines.measure.usable import usable_settings
from pipelines.run.progress import progress_bar
from pipelines.run.results import model_fingerprint, write_whole
from videoprune.config import PruneConfig
from videoprune.engine import Engine
from videoprune.eval.judge import summarize_verdicts
from videoprune.models.loading import RANDOM
from videoprune.models.shapes import model_shape

_SHORT_ANSWER = 4  # tokens that operations are reckoned with


@dataclass(frozen=True)
class SpeedRun:
    """args: of the command. out: the folder."""

    model: str
    args: argparse.Namespace
    asked: Asked
    out: Path

    def measure(self) -> int:
        """Measure what is not there yet, and write the report. Status 1 if a question had no answer."""
        self.out.mkdir(parents=True, exist_ok=True)
        if self.args.restart:
            (self.out / "shares.json").unlink(missing_ok=True)
        self._keep_facts()  # refuses a folder of other figures before anything is measured
        plan, refused = self._plan(self.out, search=True)
        self._keep_facts(plan)
        write_whole(self.out / "sample.json", json.dumps(self.asked.facts(), indent=1) + "\n")
        with progress_bar() as bar:
            shown = bar.add_task(self.model, total=plan.steps(len(self.asked.chosen)))
            run_plan(
                self.engine,
                self.asked.chosen,
                plan,
                self.out,
                recipe=self.asked.task.recipe,
                mark=self.asked.task.mark,
                restart=self.args.restart,
                advance=lambda steps: bar.advance(shown, steps),
            )
        return self._report(plan, refused)

    def tell_plan(self) -> int:
        """Print what a few videos say of the whole run. Nothing is kept."""
        with TemporaryDirectory() as folder:
            plan, refused = self._plan(Path(folder), search=False)
        found = forecast(self.engine, self.asked.chosen, plan, self.asked.task.recipe)
        lines = [
            f"{self.model} on {self.asked.task.title}: {sample_line(self.asked.facts())}",
            *(f"not possible: {r['method']}: {r['reason']}" for r in refused),
            forecast_text(found, plan, len(self.asked.samples)),
            f"Nothing was measured for the report and nothing written to {self.out}.",
        ]
        Console(markup=False, highlight=False).print("\n\n".join(lines), soft_wrap=True)
        return 0

    @property
    def is_random(self) -> bool:
        return self.model.startswith(RANDOM)

    @cached_property
    def fingerprint(self) -> str:
        return model_fingerprint(self.model)

    @cached_property
    def engine(self) -> Engine:
        return Engine(self.model, PruneConfig(), device=self.args.device)

    @cached_property
    def frames(self) -> tuple[int, ...]:
        return tuple(self.args.frames or (self.asked.task.recipe.frames or self.engine.num_frames,))

    @cached_property
    def first_clips(self) -> list[ReadClip]:
        """The first that can be read, one of each duration."""
        with closing(decoder(self.engine, self.frames[0], self.asked.task.recipe)) as decode:
            return list(islice(readable(decode, self.asked.chosen), CLIPS))

    def _plan(self, kept: Path, *, search: bool) -> tuple[Plan, list[dict[str, str]]]:
        """kept: the folder of lambdas and shares. search: for the shares of methods that cannot hit a retention."""
        settings, refused = usable_settings(
            self.engine,
            self.args.methods or method_names(),
            self.args.retain,
            clips_like(self.engine, 1, min(self.frames))[0],
            None if self.is_random else kept / "lambdas.json",
            clips=lambda: self.first_clips if search else (),
            shares=kept / "shares.json",
        )
        plan = Plan(
            settings,
            self.frames,
            tuple(self.args.concurrency),
            min(self.args.runs, len(self.asked.chosen)),
            answers=not self.is_random,
            max_new_tokens=answer_tokens(self.model, self.asked.task.recipe),
        )
        return plan, refused

    def _keep_facts(self, plan: Plan | None = None) -> None:
        facts: dict[str, Any] = {
            "model": self.fingerprint,
            **asked_facts(self.asked),
            "settings": {s.label: s.config.digest() for s in plan.settings} if plan else {},
        }
        keep_facts(self.out, facts, growing="settings", restart=self.args.restart)

    def _report(self, plan: Plan, refused: list[dict[str, str]]) -> int:
        seen, reckoning = Seen.read(self.out), self._reckoning(plan)
        scoring = asked_scoring(self.asked, self.out) if plan.answers else None
        rows = report_rows(plan, seen, reckoning, scoring)
        notes = self._write_scores(plan, seen, scoring) if scoring else []
        notes += [f"operations were not reckoned: {reason}" for reason in reckoning.lost]
        notes += [f"not scored: {reason}" for reason in (scoring.lost if scoring else [])]
        results = {
            "meta": self._meta(plan, notes),
            "rows": rows,
            "refused": refused + seen.not_measured(plan),
            "frames": self._pictures(plan) if plan.answers else [],
        }
        files = write_report(results, self.out)
        tables = markdown_tables(results)
        show_tables(tables, self.out, [f.name for f in files])
        return 1 if tell_failed(rows) else 0

    def _write_scores(self, plan: Plan, seen: Seen, scoring: Scoring) -> list[str]:
        """scores.json: what the benchmark and the judge say, by frames and setting. -> its notes on the unpruned."""
        score = self.asked.task.score
        if score is None or scoring.lost:
            return []
        found: dict[str, dict[str, Any]] = {}
        for frames in plan.frames:
            for label in plan.labels:
                rows = [r for r in seen.answers if (r["frames"], r["setting"]) == (frames, label)]
                if (run := scoring.once(frames, label, rows)) is None:
                    continue
                one = score(run.rows).as_dict()
                if self.asked.judge:
                    one |= {"judge": summarize_verdicts(run.verdicts, self.asked.judge.settings)}
                found.setdefault(str(frames), {})[label] = one
        write_whole(self.out / "scores.json", json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        first = next(iter(found.values()), {})
        return list(next(iter(first.values()))["notes"]) if first else []

    def _pictures(self, plan: Plan) -> list[dict[str, str]]:
        if not self.first_clips:
            return []
        return kept_pictures(self.engine, plan.settings, self.first_clips[0].item.samples[0])

    def _reckoning(self, plan: Plan) -> Reckoning:
        engine = self.engine
        probe = clips_like(engine, 1)[0]
        clip = engine.encode([probe.frames])[0]
        asked = [s for s in self.asked.samples if s.question][:30]
        read = self.first_clips[0].frames.pixels.shape if self.first_clips else probe.frames.pixels.shape
        return Reckoning(
            model_shape(engine.model.config),
            text=median_high(engine.text_tokens(clip, s) for s in asked),
            new_tokens=_SHORT_ANSWER if plan.answers else plan.max_new_tokens,
            size=engine.frame_size or (int(read[1]), int(read[2])),
            bytes_per_value=next(engine.model.parameters()).itemsize,
        )

    def _meta(self, plan: Plan, notes: list[str]) -> dict[str, Any]:
        config: Any = self.engine.model.config
        text = getattr(config, "text_config", config)
        return {
            **asked_meta(self.model, self.asked, self.args.chosen_on),
            "versions": versions(),
            "digest": ",".join(s.config.digest() for s in plan.settings[:3]),
            "attention": getattr(text, "_attn_implementation", None) or "sdpa",
            "dtype": str(next(self.engine.model.parameters()).dtype).removeprefix("torch."),
            "runs": plan.runs,
            "questions": len(self.asked.samples) if plan.answers else 0,
            "accuracy_measured": plan.answers,
            "threads": torch.get_num_threads(),
            "notes": notes,
        }
