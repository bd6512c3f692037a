"""`videoprune speedup`: how much faster, where the time goes, what it costs in accuracy, and against which methods."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from pipelines.calibrate import TrainingClip, clips_like, solve
from pipelines.measure.environment import hardware, hardware_line, versions
from pipelines.measure.memory import keep_freed
from pipelines.measure.methods import method_config, method_names
from pipelines.measure.report.report import markdown_tables, write_report
from pipelines.measure.report.rows import BASELINE
from pipelines.measure.speed_pictures import kept_pictures
from pipelines.measure.speed_plan import Plan, Setting
from pipelines.measure.speed_results import report_rows
from pipelines.measure.speed_run import run_plan
from pipelines.run.progress import progress_bar
from pipelines.run.results import model_fingerprint, read_rows, write_whole
from pipelines.run.stages import group_by_video, with_prune
from pipelines.run.tasks import moving_shapes_samples
from videoprune.config import PruneConfig
from videoprune.engine import AnyEngine, Engine, open_engine
from videoprune.models.inputs import own_settings
from videoprune.models.multi_encoder import calibration_key
from videoprune.models.shapes import model_shape
from videoprune.prompts import prompt
from videoprune.stock_engine import RANDOM, StockEngine

_CALIBRATION_CLIPS = 12


def run(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Measure each model of `--model` into a folder of its own, and write its report."""
    keep_freed()
    names = args.model.removeprefix(RANDOM).split(",")
    prefix = RANDOM if args.model.startswith(RANDOM) else ""
    for name in names:
        base = Path(args.out or "runs/speedup")
        out = base if len(names) == 1 and args.out else base / _folder(name)
        _measure(f"{prefix}{name}", args, out)
    return 0


def _folder(model: str) -> str:
    """The last part of a model's name; what is behind a dot belongs to it (qwen2.5), unless it is a file's ending."""
    path = Path(model)
    return path.stem if path.suffix in (".yaml", ".yml") else path.name


def _measure(model: str, args: argparse.Namespace, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    engine = open_engine(model, PruneConfig(), device=args.device)
    samples = moving_shapes_samples(args.data, args.clips, args.seed, args.limit)
    items = group_by_video(samples)
    probe = clips_like(engine, 1)[0]
    settings, refused = usable_settings(engine, args.methods or method_names(), args.retain, probe, out)
    frames = tuple(args.frames or (engine.num_frames,))
    plan = Plan(
        settings,
        frames,
        tuple(args.concurrency),
        min(args.runs, len(items)),
        answers=not model.startswith(RANDOM),
        max_new_tokens=8 if model.startswith(RANDOM) else 64,
    )
    _check_same(out, model, plan, samples[0].video, restart=args.restart)
    with progress_bar() as bar:
        task = bar.add_task(model, total=len(frames) * (len(items) if plan.answers else plan.runs))
        run_plan(
            engine, items, plan, out, restart=args.restart, advance=lambda steps: bar.advance(task, steps)
        )
    rows = report_rows(
        plan,
        read_rows(out / "answers.jsonl"),
        read_rows(out / "times.jsonl"),
        read_rows(out / "memory.jsonl"),
        model_shape(engine.model.config),
        text_tokens=_text_tokens(engine, probe, [prompt(s) for s in samples[:30]]),
        new_tokens=4 if plan.answers else plan.max_new_tokens,
        size=engine.frame_size,
        bytes_per_value=engine.model.dtype.itemsize,
    )
    results = {
        "meta": _meta(model, args, engine, plan, len(samples)),
        "rows": rows,
        "refused": refused,
        "frames": kept_pictures(engine, settings, items[0]) if plan.answers else [],
    }
    files = write_report(results, out)
    write_whole(out / "tables.md", markdown_tables(results))
    Console(markup=False, highlight=False).print(markdown_tables(results), soft_wrap=True)
    print(f"{out}: {', '.join(f.name for f in files)}")


def usable_settings(
    engine: AnyEngine, methods: Sequence[str], retain: Sequence[float], probe: TrainingClip, out: Path
) -> tuple[tuple[Setting, ...], list[dict[str, str]]]:
    """The unpruned model and every method at every retention that the model and the method allow, as the clip `probe`
    tells; the others with the reason. Lambdas that the model has no calibration for are solved for, and kept in
    `out`/lambdas.json."""
    found, refused = [Setting(BASELINE, 1.0, PruneConfig())], []
    for method in methods:
        if method == BASELINE:
            continue
        for share in sorted(retain, reverse=True):
            name = f"{method}@{share:g}"
            try:
                setting = Setting(
                    method, share, _calibrated(engine, method, method_config(method, share), out)
                )
                _try(engine, setting, probe)
                found.append(setting)
            except ValueError as error:
                refused.append({"method": name, "reason": str(error)})
                if str(error).startswith("method="):  # a name that is none: nothing was measured yet
                    raise
    return tuple(found), refused


def _try(engine: AnyEngine, setting: Setting, clip: TrainingClip) -> None:
    """Raises ValueError if the model cannot be pruned so: on one clip, which also shows ratios out of reach."""
    ready: Any = with_prune(engine, setting.prune)
    ready.answer(ready.encode([clip.frames])[0], clip.samples[:1], max_new_tokens=1)


def _calibrated(engine: AnyEngine, method: str, prune: PruneConfig, out: Path) -> PruneConfig:
    if prune.llm.method != "adaptive" or prune.llm.lambda_ is not None:
        return prune
    key = calibration_key(prune)
    if isinstance(engine, Engine):
        if key in engine.model.config.lambdas:
            return prune
    elif key in own_settings(engine.model.config).get("lambdas", {}):
        return prune
    elif method != "meteor" or _random(engine):  # what `apply` does without a lambda
        return prune.replace(**{"llm.method": "fixed"})
    path = out / "lambdas.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    if key not in known:
        print(f"calibrating {key}", file=sys.stderr)
        known[key] = solve(engine, clips_like(engine, _CALIBRATION_CLIPS), prune).lambda_
        write_whole(path, json.dumps(known, indent=1))
    return prune.replace(**{"llm.lambda_": known[key]})


def _random(engine: AnyEngine) -> bool:
    return isinstance(engine, StockEngine) and getattr(engine.inputs, "tokenizer", engine) is None


def _check_same(out: Path, model: str, plan: Plan, first: str, *, restart: bool) -> None:
    """Raises ValueError if `out` holds figures of another model, other settings or other clips."""
    mine = {
        "model": model_fingerprint(model),
        "settings": {s.label: s.prune.digest() for s in plan.settings},
        "first": first,
    }
    path = out / "run.json"
    if path.exists() and not restart:
        theirs = json.loads(path.read_text())
        shared = {k for k in mine["settings"] if k in theirs["settings"]}  # more settings may be added
        other = [k for k in shared if mine["settings"][k] != theirs["settings"][k]]  # type: ignore[index]
        if other or any(mine[k] != theirs[k] for k in ("model", "first")):
            what = f"other settings of {other[0]}" if other else "another model or other clips"
            raise ValueError(
                f"out={out}: holds figures of {what}; allowed: an --out folder of its own, or "
                "--restart, which empties this one"
            )
        mine["settings"] = {**theirs["settings"], **mine["settings"]}  # type: ignore[dict-item]
    write_whole(path, json.dumps(mine, indent=1))


def _text_tokens(engine: AnyEngine, clip: TrainingClip, texts: Sequence[str]) -> int:
    """All that is no visual token in the median prompt."""
    if isinstance(engine, Engine):
        counts = [len(engine.tokenizer.encode(t)) for t in texts]
    else:
        counts = [engine.text_tokens(clip.frames, t) for t in texts]
    return sorted(counts)[len(counts) // 2]


def _meta(
    model: str, args: argparse.Namespace, engine: AnyEngine, plan: Plan, questions: int
) -> dict[str, Any]:
    config: Any = engine.model.config
    text = getattr(config, "text_config", config)
    return {
        "dataset": "MovingShapes",
        "model": model,
        "hardware": hardware_line(hardware()),
        "versions": versions(),
        "digest": ",".join(s.prune.digest() for s in plan.settings[:3]),
        "command": "videoprune " + " ".join(sys.argv[1:]),
        "attention": getattr(text, "_attn_implementation", None) or "sdpa",
        "dtype": str(engine.model.dtype).removeprefix("torch."),
        "runs": plan.runs,
        "questions": questions if plan.answers else 0,
        "accuracy_measured": plan.answers,
        "threads": torch.get_num_threads(),
    }
