"""`videoprune score NAME PREDICTIONS`: scores of predictions that are there already, ours or anyone's."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines.printing import print_scores
from pipelines.run.progress import progress_bar
from pipelines.run.results import Row, read_rows, write_whole
from pipelines.run.stages import failed_rows, group_by_video
from pipelines.run.tasks import chosen_split
from videoprune.eval.benchmarks.base import Benchmark
from videoprune.eval.benchmarks.folder import read_json, read_json_lines
from videoprune.eval.benchmarks.registry import benchmark
from videoprune.eval.judge import (
    Complete,
    JudgeSettings,
    ReplyCache,
    Rule,
    Verdict,
    judge_rows,
    summarize_verdicts,
)
from videoprune.types import UNUSABLE, Sample

# What each tool judges with where nothing else is said: model, temperature, most tokens.
_DEFAULTS: dict[Rule, tuple[str, float | None, int | None]] = {
    "video-chatgpt": ("gpt-3.5-turbo", None, None),
    "lmms-eval": ("gpt-4o-2024-11-20", 0.0, 64),
    "ig-vlm": ("gpt-3.5-turbo", None, None),
}
_RULES: dict[str, Rule] = {"official": "video-chatgpt", "lmms-eval": "lmms-eval", "ig-vlm": "ig-vlm"}


def run(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    """`videoprune score`. Status 1 if a question of the file has no answer."""
    found = benchmark(args.benchmark)
    split = chosen_split(found, args.split)
    found.check(split, args.protocol)
    folder = Path(args.data) if args.data else None
    samples = found.load(folder, split=split, protocol=args.protocol) if folder else None
    rows, notes = prediction_rows(found, [Path(p) for p in args.predictions], samples)
    scores = found.score(rows, split=split, protocol=args.protocol, folder=folder).as_dict()
    scores["notes"] += notes
    if args.judge:
        scores["judge"] = _judged(found, rows, args)
    title = f"{found.title} {split}, protocol {args.protocol}"
    if args.out:
        write_whole(Path(args.out), json.dumps(scores, indent=2, ensure_ascii=False) + "\n")
    if args.json:
        print(json.dumps(scores, ensure_ascii=False))
    else:
        console = Console(markup=False, highlight=False)
        print_scores(scores, title, console)
        if args.judge:
            console.print(_judge_line(scores["judge"], title), soft_wrap=True)
    return 1 if any(row["outcome"] == "failed" for row in rows) else 0


def prediction_rows(
    found: Benchmark, paths: Sequence[Path], samples: Sequence[Sample] | None
) -> tuple[list[Row], list[str]]:
    """Rows to score, and notes: from results.jsonl, a run's folder with or without shards, or an official form.

    samples: the benchmark's questions; with them every question has a row, without them the files must carry
    the truth. Raises ValueError where they do not, for a question with two predictions, or if no prediction is
    of these questions.
    """
    rows: dict[str, Row] = {}
    for path in paths:
        for row in _read(found, path):
            name = row["question_id"]
            if name in rows:
                raise ValueError(f"{path}: question {name} has two predictions; allowed: one")
            rows[name] = row
    if samples is None:
        bare = next((r for r in rows.values() if not {"answer", "category", "question"} <= r.keys()), None)
        if bare is not None:
            raise ValueError(
                f"predictions: question {bare['question_id']} comes without its answer; name the folder of "
                f"{found.title} with --data"
            )
        return [{"video_id": "", "outcome": "complete", "reason": "", **r} for r in rows.values()], []
    return _joined(rows, samples, paths)


def judge(
    rows: Sequence[Row], complete: Complete, settings: JudgeSettings, cache: Path, *, workers: int = 1
) -> tuple[dict[str, Any], list[Verdict]]:
    """What the judge says of rows, with a progress bar; replies are kept in `cache`."""
    with progress_bar() as bar:
        given = judge_rows(rows, complete, settings, ReplyCache(cache), workers=workers)
        verdicts = list(bar.track(given, total=len(rows), description="judged"))
    return summarize_verdicts(verdicts, settings), verdicts


def _read(found: Benchmark, path: Path) -> list[Row]:
    if path.is_dir():
        files = sorted(path.glob("shard-*/results.jsonl")) or [path / "results.jsonl"]
        if not files[0].is_file():
            raise ValueError(f"predictions={path}: looked for results.jsonl and shard-*/results.jsonl")
        return [row for file in files for row in read_rows(file).values()]
    if not path.is_file():
        raise ValueError(f"predictions={path}: no such file")
    if path.suffix != ".jsonl":
        return found.predictions(read_json(path))
    if _is_results(path):
        return list(read_rows(path).values())
    return found.predictions(read_json_lines(path))


def _is_results(path: Path) -> bool:
    with path.open(encoding="utf-8") as file:
        first = file.readline()
    try:
        return {"question_id", "outcome", "text"} <= json.loads(first).keys()
    except (ValueError, AttributeError):
        return False


def _joined(
    rows: dict[str, Row], samples: Sequence[Sample], paths: Sequence[Path]
) -> tuple[list[Row], list[str]]:
    known = {s.question_id for s in samples}
    strange = [name for name in rows if name not in known]
    if rows and len(strange) == len(rows):
        raise ValueError(
            f"predictions={', '.join(map(str, paths))}: none of the {len(rows)} is of a question of the split; "
            f"first: {strange[0]}"
        )
    joined, other_truth = [], 0
    for item in group_by_video(samples):
        for sample, blank in zip(item.samples, failed_rows(item, "no prediction"), strict=True):
            row = rows.get(sample.question_id)
            if row is None:
                joined.append(blank | {"reason": sample.meta.get(UNUSABLE, "no prediction")})
                continue
            other_truth += row.get("answer", sample.answer) != sample.answer
            done = {"outcome": "complete", "reason": ""} | row
            joined.append(blank | {k: done[k] for k in ("text", "outcome", "reason")})
    notes = [f"{len(strange)} predictions are of other questions and do not count"] if strange else []
    if other_truth:
        notes.append(
            f"{other_truth} predictions come with another answer than the split's; the split's counts"
        )
    return joined, notes


def _judged(found: Benchmark, rows: Sequence[Row], args: argparse.Namespace) -> dict[str, Any]:
    if not found.judged:
        raise ValueError(f"judge={args.judge!r}; {found.title} is not scored by a judge")
    rule = _RULES[args.protocol]
    model, temperature, tokens = _DEFAULTS[rule]
    complete: Complete
    if args.judge.startswith(("http://", "https://")):
        from videoprune.eval.judge_http import HttpJudge

        temperature = temperature if args.judge_temperature is None else args.judge_temperature
        settings = JudgeSettings(args.judge_model or model, temperature, tokens, rule)
        complete = HttpJudge(args.judge, settings, key=os.environ.get("OPENAI_API_KEY", ""))
    else:
        if args.judge_model is not None or args.judge_temperature is not None:
            raise ValueError(
                f"judge={args.judge!r}: a local model; --judge-model and --judge-temperature are for endpoints"
            )
        from pipelines.local_judge import LocalJudge

        complete = LocalJudge(args.judge, device=args.device)
        settings = JudgeSettings(args.judge, 0.0, complete.max_tokens, rule)
    first = Path(args.predictions[0])
    cache = first / "judge.jsonl" if first.is_dir() else first.with_name(f"{first.name}.judge.jsonl")
    workers = args.judge_workers if args.judge.startswith("http") else 1
    summary, verdicts = judge(rows, complete, settings, cache, workers=workers)
    lost = [asdict(v) for v in verdicts if v.reason]
    return summary | {"without_verdict": lost[:100]}


def _judge_line(summary: dict[str, Any], title: str) -> str:
    if summary["accuracy"] is None:
        return f"{title}: the judge {summary['model']} gave no verdict"
    warmth = "the server's" if summary["temperature"] is None else summary["temperature"]
    return (
        f"{title}, judged by {', '.join(summary['served']) or summary['model']} (temperature {warmth}, rule "
        f"{summary['rule']}): accuracy {summary['accuracy']:.2f} %, score {summary['score'] or 0:.2f}; yes over all "
        f"{summary['questions']} questions {summary['corrected']:.2f} %; unparsable {summary['unparsable']}, "
        f"no reply {summary['no_reply']}, no answer {summary['no_answer']}"
    )
