"""Questions in, results.jsonl and summary.json out, resumable at any moment.

Both executors give the same rows, except for `seconds` and for which backend had to help out under load. Sums
of floats in another order (other thread counts, other machines) may differ in the last digits; the answers
and token counts change only where two choices are that close.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.arguments import TRANSFORMERS
from pipelines.measure.environment import hardware, versions
from pipelines.run.progress import RunProgress
from pipelines.run.results import Results, row_key, video_fingerprint, write_whole
from pipelines.run.row_index import RowIndex
from pipelines.run.stages import ClipItem
from pipelines.run.status import ActorStatus, RunStatus
from pipelines.run.stop import Stop, StoppedError
from pipelines.run.tasks import Task
from videoprune.config import PruneConfig
from videoprune.eval.summary import summarize
from videoprune.result_row import ResultRow

Runner = Callable[[Iterable[ClipItem]], Iterator[list[ResultRow]]]


@dataclass(frozen=True)
class RunSettings:
    """What a run is made with, beside its task. fingerprint: of the model's files, see `results.model_fingerprint`.
    engine: what computes the answers."""

    model: str
    fingerprint: str
    prune: PruneConfig
    executor: str = "local"
    engine: str = TRANSFORMERS


def evaluate(
    task: Task,
    runner: Runner,
    out: Path,
    settings: RunSettings,
    *,
    restart: bool = False,
    shown: bool = True,
    actors: ActorStatus | None = None,
) -> dict[str, Any]:
    """Ask what `out`/results.jsonl does not answer yet, and return what `out`/summary.json then holds.

    A clip of which only some questions are answered is asked all of them again; clips that share calls with others
    than in a run that was never stopped may differ from it in the last digits of floats. Rows of failed questions are
    tried again. SIGINT and SIGTERM end a run as `stop` says. actors: what `runner` keeps up to date, to be shown.

    Raises ValueError if `out` holds answers from other settings, another model or other videos, unless `restart`, and
    StoppedError for a run that was ended.
    """
    items, questions = task.items(), [s.question_id for s in task.samples]
    with Results(out / "results.jsonl", restart=restart) as results:
        index = results.index
        keys = _keys(items, index, settings, task.digest(), out)
        todo = [item for item in items if not all(index.answered(s.question_id) for s in item.samples)]
        started = time.perf_counter()
        stop, actors = Stop(), actors or ActorStatus()
        status = RunStatus(len(questions), sum(map(index.answered, questions)), actors)
        with RunProgress(status, shown=shown and bool(todo)) as progress, stop.listening():
            for rows in runner(stop.until(todo)) if todo else ():
                new = [r | {"key": keys[r["question_id"]]} for r in rows if r["question_id"] in keys]
                new = list(map(task.mark, new)) if task.mark else new
                results.append([r for r in new if not index.failed_so(r)])
                progress.add(new)
        seconds = time.perf_counter() - started
        left = sum(q not in index for q in questions)
        if stop.signal is not None and left:
            raise StoppedError(len(questions) - left, len(questions), stop)
        records = results.rows(questions)
    summary = _summary(records, settings, status.asked, seconds, actors.busy(), out / "summary.json")
    summary |= task.finish(records, out) if task.finish else {}
    text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
    write_whole(out / "summary.json", text)
    return json.loads(text)


def _keys(
    items: Sequence[ClipItem], index: RowIndex, settings: RunSettings, task: str, out: Path
) -> dict[str, str]:
    """What the row of each question that has no answer yet is made from: see `row_key`. task: its digest.

    Raises ValueError if an answer that is there was made from something else."""
    engine = "" if settings.engine == TRANSFORMERS else settings.engine
    digest = "\n".join(filter(None, (settings.prune.digest(), task, engine)))
    keys: dict[str, str] = {}
    other: list[str] = []
    for item in items:
        video = video_fingerprint(item.video, item.known)
        video += "" if item.until is None else f" until {item.until}"
        for question in (s.question_id for s in item.samples):
            key = row_key(question, video, settings.fingerprint, digest)
            if not index.answered(question):
                keys[question] = key
            elif not index.made_from(question, key):
                other.append(question)
    if other:
        raise ValueError(
            f"out={out}: {len(other)} of its rows (first: question {other[0]}) come from other settings, "
            "another model or another video; allowed: an --out folder of its own, or --restart, which "
            "empties this one"
        )
    return keys


def _summary(
    records: Iterable[ResultRow],
    settings: RunSettings,
    fresh: int,
    seconds: float,
    busy: float | None,
    path: Path,
) -> dict[str, Any]:
    """Scores, and what they were made with. A run that had nothing left to ask keeps its earlier speed.

    busy: share of the models' time in which they worked."""
    speed = {
        "questions_asked": fresh,
        "wall_seconds": round(seconds, 6),
        "questions_per_second": round(fresh / seconds, 4),
        "model_busy": None if busy is None else round(busy, 4),
        "executor": settings.executor,
        "engine": settings.engine,
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
