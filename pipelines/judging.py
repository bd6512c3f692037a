"""A language model that judges open answers: what is asked of it, and how, by the arguments of a command."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.run.progress import progress_bar
from videoprune.eval.benchmarks.base import Benchmark
from videoprune.eval.judge import Complete, JudgeSettings, ReplyCache, Rule, Verdict, judge_rows

# What each tool judges with where nothing else is said: model, temperature, most tokens.
_DEFAULTS: dict[Rule, tuple[str, float | None, int | None]] = {
    "video-chatgpt": ("gpt-3.5-turbo", None, None),
    "lmms-eval": ("gpt-4o-2024-11-20", 0.0, 64),
    "ig-vlm": ("gpt-3.5-turbo", None, None),
}
_RULES: dict[str, Rule] = {"official": "video-chatgpt", "lmms-eval": "lmms-eval", "ig-vlm": "ig-vlm"}


@dataclass(frozen=True)
class Judge:
    """complete: asks it. workers: requests at once."""

    complete: Complete
    settings: JudgeSettings
    workers: int

    def verdicts(self, rows: Sequence[Mapping[str, Any]], kept: ReplyCache) -> list[Verdict]:
        """Of rows, in their order, with a progress bar. kept: its replies so far."""
        with progress_bar() as bar:
            given = judge_rows(rows, self.complete, self.settings, kept, workers=self.workers)
            return list(bar.track(given, total=len(rows), description="judged"))


def open_judge(found: Benchmark, args: argparse.Namespace) -> Judge:
    """The judge of `--judge` and its kin. Raises ValueError for a benchmark that no judge scores."""
    if not found.judged:
        raise ValueError(f"judge={args.judge!r}; {found.title} is not scored by a judge")
    rule = _RULES[args.protocol]
    if args.judge.startswith(("http://", "https://")):
        from videoprune.eval.judge_http import HttpJudge

        model, temperature, tokens = _DEFAULTS[rule]
        temperature = temperature if args.judge_temperature is None else args.judge_temperature
        settings = JudgeSettings(args.judge_model or model, temperature, tokens, rule)
        key = os.environ.get("OPENAI_API_KEY", "")
        return Judge(HttpJudge(args.judge, settings, key=key), settings, args.judge_workers)
    if args.judge_model is not None or args.judge_temperature is not None:
        raise ValueError(
            f"judge={args.judge!r}: a local model; --judge-model and --judge-temperature are for endpoints"
        )
    from pipelines.local_judge import LocalJudge

    local = LocalJudge(args.judge, device=args.device)
    return Judge(local, JudgeSettings(args.judge, 0.0, local.max_tokens, rule), 1)
