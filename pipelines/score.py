"""`videoprune score NAME PREDICTIONS`: scores of predictions that are there already, ours or anyone's."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.arguments import BENCHMARKS, Commands, add_judge, add_protocol, command

if TYPE_CHECKING:
    from videoprune.eval.benchmarks.base import Benchmark


def add(commands: Commands) -> None:
    text = "Score predictions: results.jsonl, a run's folder, or a benchmark's own form."
    score = command(commands, "score", text, run)
    score.add_argument("benchmark", choices=BENCHMARKS)
    score.add_argument(
        "predictions", nargs="+", metavar="PREDICTIONS", help="a file or folder; several add up"
    )
    add_protocol(score)
    score.add_argument("--data", metavar="DIR", help="the benchmark's folder, where the file lacks the truth")
    score.add_argument("--out", metavar="FILE", help="write all scores as JSON")
    score.add_argument("--json", action="store_true", help="print one JSON object")
    add_judge(score)
    score.add_argument("--device", help="of a local judge")


def run(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Status 1 if a question of the file has no answer."""
    from rich.console import Console

    from pipelines.printing import print_scores
    from pipelines.run.predictions import prediction_rows
    from pipelines.run.results import write_whole
    from pipelines.run.tasks import chosen_split
    from videoprune.eval.benchmarks.registry import benchmark

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


def _judged(found: Benchmark, rows: Sequence[Mapping[str, Any]], args: argparse.Namespace) -> dict[str, Any]:
    """What the judge says of rows, with a progress bar; replies are kept beside the predictions."""
    from dataclasses import asdict

    from pipelines.judging import open_judge
    from videoprune.eval.judge import ReplyCache, summarize_verdicts

    first = Path(args.predictions[0])
    cache = first / "judge.jsonl" if first.is_dir() else first.with_name(f"{first.name}.judge.jsonl")
    judge = open_judge(found, args)
    verdicts = judge.verdicts(rows, ReplyCache(cache))
    lost = [asdict(v) for v in verdicts if v.reason]
    return summarize_verdicts(verdicts, judge.settings) | {"without_verdict": lost[:100]}


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
