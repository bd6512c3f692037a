"""Scores a model on a benchmark: questions in, results.jsonl and summary.json out, resumable at any moment.

Both executors give the same rows, except for `seconds` and for which backend had to help out under load. Sums
of floats in another order (other thread counts, other machines) may differ in the last digits; the answers
and token counts change only where two choices are that close.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipelines.configuring import load_prune
from pipelines.measure.environment import hardware, versions
from pipelines.printing import cost_line, print_scores
from pipelines.run import local
from pipelines.run.progress import progress_bar
from pipelines.run.results import Results, model_fingerprint, row_key, video_fingerprint, write_whole
from pipelines.run.stages import ClipItem, DecodeStage, ModelStage, Row, clip_shape, group_by_video
from pipelines.run.tasks import Task, open_task
from videoprune.config import PruneConfig
from videoprune.eval.summary import summarize
from videoprune.types import Sample

Runner = Callable[[Sequence[ClipItem]], Iterator[list[Row]]]


@dataclass(frozen=True)
class RunSettings:
    """What a run is made with. fingerprint: of the model's files, see `records.model_fingerprint`."""

    model: str
    fingerprint: str
    prune: PruneConfig
    executor: str = "local"
    task: str = ""  # what decides a row beside these: benchmark, split, protocol, frames


def evaluate(
    samples: Sequence[Sample],
    runner: Runner,
    out: Path,
    settings: RunSettings,
    *,
    restart: bool = False,
    shown: bool = True,
    mark: Callable[[Row], Row] | None = None,
    finish: Callable[[Sequence[Row], Path], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Ask what `out`/results.jsonl does not answer yet, and return what `out`/summary.json then holds.

    A clip of which only some questions are answered is asked all of them again, so that batches are the same
    as in a run that was never stopped. Rows of failed questions are tried again. Raises ValueError if `out`
    holds answers from other settings, another model or other videos, unless `restart`.
    mark: what a benchmark's protocol makes of a row, before it is written. finish: what its scores add to the
    summary, from all rows and `out`.
    """
    items = group_by_video(samples)
    keys = _keys(items, settings)
    with Results(out / "results.jsonl", restart=restart) as results:
        _check_keys(results.rows, keys, out)
        done = {q for q in keys if q in results.rows and results.rows[q]["outcome"] != "failed"}
        todo = [item for item in items if any(s.question_id not in done for s in item.samples)]
        started = time.perf_counter()
        fresh = 0
        with progress_bar(shown=shown and bool(todo)) as bar:
            task = bar.add_task("questions", total=len(keys), completed=len(done))
            for rows in runner(todo) if todo else ():
                new = [{**r, "key": keys[r["question_id"]]} for r in rows if r["question_id"] not in done]
                new = list(map(mark, new)) if mark else new
                results.append([r for r in new if not _failed_so_before(r, results.rows)])
                fresh += len(new)
                bar.advance(task, len(new))
        seconds = time.perf_counter() - started
        records = [results.rows[q] for q in keys]
    summary = _summary(records, settings, fresh, seconds, out / "summary.json")
    summary |= finish(records, out) if finish else {}
    text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
    write_whole(out / "summary.json", text)
    return json.loads(text)


def _keys(items: Sequence[ClipItem], settings: RunSettings) -> dict[str, str]:
    """What each question's row is made from: see `row_key`."""
    digest = "\n".join(filter(None, (settings.prune.digest(), settings.task)))
    keys: dict[str, str] = {}
    for item in items:
        video = video_fingerprint(item.video)
        keys |= {
            s.question_id: row_key(s.question_id, video, settings.fingerprint, digest) for s in item.samples
        }
    return keys


def _failed_so_before(row: Row, known: dict[str, Row]) -> bool:
    """Whether the file says the same failure already: trying again must not make it longer each time."""
    before = known.get(row["question_id"], {})
    parts = ("outcome", "reason", "key")
    return bool(row["outcome"] == "failed" and all(before.get(p) == row[p] for p in parts))


def run(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    """`videoprune eval NAME`. Status 1 if a question had no video to be answered from."""
    prune = load_prune(args.prune, overrides)
    task = open_task(args)
    out = _out(args, task, prune)
    settings = RunSettings(args.model, model_fingerprint(args.model), prune, args.executor, task.digest())
    num_frames, size = clip_shape(args.model)
    recipe = task.recipe
    decode = DecodeStage(recipe.frames or num_frames, size, policy=recipe.policy, columns=recipe.columns)
    model = ModelStage(
        args.model, prune, device=args.device, batch=args.batch, max_new_tokens=recipe.max_new_tokens
    )
    runner: Runner
    if args.executor == "ray":
        from pipelines.run import ray

        options = ray.RayOptions(decoders=args.workers, models=args.models, address=args.ray_address)
        runner = partial(ray.run, decode=decode, model=model, options=options)
    else:
        runner = partial(local.run, decode=decode, model=model)
    summary = evaluate(
        task.samples, runner, out, settings, restart=args.restart, mark=task.mark, finish=task.finish
    )
    return _print_summary(summary, out, task.title)


def _out(args: argparse.Namespace, task: Task, prune: PruneConfig) -> Path:
    """Shards write beside each other: two processes must not write one file."""
    digests = "-".join(filter(None, (prune.digest(), task.digest())))
    name = f"{task.label}{Path(args.model).name}-{Path(args.prune).stem}-{digests}"
    out = Path(args.out or f"runs/eval/{name}")
    return out / f"shard-{args.shard[0]}-of-{args.shard[1]}" if args.shard else out


def _check_keys(rows: dict[str, Row], keys: dict[str, str], out: Path) -> None:
    other = [q for q, key in keys.items() if q in rows and rows[q]["key"] != key]
    other = [q for q in other if rows[q]["outcome"] != "failed"]
    if other:
        raise ValueError(
            f"out={out}: {len(other)} of its rows (first: question {other[0]}) come from other settings, "
            "another model or another video; allowed: an --out folder of its own, or --restart, which "
            "empties this one"
        )


def _summary(
    records: Sequence[Row], settings: RunSettings, fresh: int, seconds: float, path: Path
) -> dict[str, Any]:
    """Scores, and what they were made with. A run that had nothing left to ask keeps its earlier speed."""
    speed = {
        "questions_asked": fresh,
        "wall_seconds": round(seconds, 6),
        "questions_per_second": round(fresh / seconds, 4),
        "executor": settings.executor,
        "versions": versions(),
        "hardware": hardware(),
    }
    if not fresh and path.exists():
        speed |= {k: v for k, v in json.loads(path.read_text()).items() if k in speed}
    return {
        **summarize(records),
        "config": settings.prune.as_dict(),
        "digest": settings.prune.digest(),
        "model": {"name": settings.model, "fingerprint": settings.fingerprint},
        **speed,
    }


def _print_summary(summary: dict[str, Any], out: Path, title: str) -> int:
    counts = summary["counts"]
    console = Console(markup=False, highlight=False)
    title = f"{summary['model']['name']} on {title}"
    if summary.get("scores"):
        print_scores(summary["scores"], title, console)
    else:
        _print_accuracy(summary, title, console)
    if "scores_reason" in summary:
        Console(stderr=True).print(f"not scored: {summary['scores_reason']}", soft_wrap=True)
    console.print(cost_line(summary), soft_wrap=True)
    console.print(
        f"{summary['questions_per_second']:.2f} questions per second; rows in {out}/results.jsonl",
        soft_wrap=True,
    )
    if counts["failed"]:
        Console(stderr=True).print(
            f"{counts['failed']} of {counts['questions']} questions failed; their rows say why"
        )
    return 1 if counts["failed"] else 0


def _print_accuracy(summary: dict[str, Any], title: str, console: Console) -> None:
    figures, counts = summary["accuracy"], summary["counts"]
    table = Table("group", "questions", "accuracy %", title=title)
    low, high = figures["overall_ci95"]
    overall = f"{100 * figures['overall']:.1f} ({100 * low:.1f} to {100 * high:.1f})"
    table.add_row("all", str(counts["questions"]), overall, end_section=True)
    for part in ("by_category", "by_duration"):
        for name, score in figures[part].items():
            table.add_row(name, str(score["n"]), f"{100 * score['accuracy']:.1f}")
        table.add_section()
    console.print(table)
