"""`videoprune speedup`: how much faster, where the time goes, what it costs in accuracy, and against which methods."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.arguments import Commands, add_data, add_model, command, count, counts, numbers, words

if TYPE_CHECKING:
    from pipelines.measure.calibration import TrainingClip
    from pipelines.measure.plan import Plan
    from pipelines.measure.results import Reckoning
    from videoprune.engine import Engine
    from videoprune.types import Sample

_RANDOM = "random:"


def add(commands: Commands) -> None:
    text = "How much faster, where the time goes, what it costs in accuracy: methods side by side, with a report."
    speed = command(commands, "speedup", text, run)
    speed.add_argument("benchmark", choices=("moving-shapes",))
    speed.add_argument(
        "--methods",
        type=words,
        metavar="M,M,...",
        help="none, videoprune (light, balanced, aggressive), evoprune, meteor, and rivals (default: all)",
    )
    speed.add_argument("--retain", type=numbers, default=(0.5, 0.25, 0.1), metavar="R,R,...")
    speed.add_argument("--frames", type=counts, metavar="N,N,...", help="(default: as the model was trained)")
    speed.add_argument("--concurrency", type=counts, default=(1,), metavar="N,N,...", help="clips in a call")
    speed.add_argument("--runs", type=count, default=7, metavar="N", help="timed runs of each (default: 7)")
    speed.add_argument("--out", metavar="DIR", help="figures and report (default: below runs/speedup)")
    speed.add_argument("--restart", action="store_true", help="empty --out first")
    add_data(speed)
    add_model(speed)


def run(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Measure each model of `--model` into a folder of its own, and write its report."""
    from pipelines.measure.memory import keep_freed

    keep_freed()
    names = args.model.removeprefix(_RANDOM).split(",")
    prefix = _RANDOM if args.model.startswith(_RANDOM) else ""
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
    from pipelines.measure.calibration import clips_like
    from pipelines.measure.methods import method_names
    from pipelines.measure.pictures import kept_pictures
    from pipelines.measure.plan import Plan
    from pipelines.measure.results import Seen, report_rows
    from pipelines.measure.run import run_plan
    from pipelines.measure.same_run import keep_facts
    from pipelines.measure.usable import usable_settings
    from pipelines.run.progress import progress_bar
    from pipelines.run.results import model_fingerprint
    from pipelines.run.stages import group_by_video
    from pipelines.run.tasks import moving_shapes_samples
    from videoprune.config import PruneConfig
    from videoprune.engine import Engine

    out.mkdir(parents=True, exist_ok=True)
    engine = Engine(model, PruneConfig(), device=args.device)
    samples = moving_shapes_samples(args.data, args.clips, args.seed, args.limit)
    items = group_by_video(samples)
    probe = clips_like(engine, 1)[0]
    is_random = model.startswith(_RANDOM)
    lambdas = None if is_random else out / "lambdas.json"
    fewest = (
        clips_like(engine, 1, min(args.frames))[0] if args.frames else probe
    )  # EVS needs a whole frame's share
    settings, refused = usable_settings(engine, args.methods or method_names(), args.retain, fewest, lambdas)
    plan = Plan(
        settings,
        tuple(args.frames or (engine.num_frames,)),
        tuple(args.concurrency),
        min(args.runs, len(items)),
        answers=not is_random,
        max_new_tokens=8 if is_random else 64,
    )
    digests = {s.label: s.config.digest() for s in settings}
    facts = {"model": model_fingerprint(model), "first": samples[0].video, "settings": digests}
    keep_facts(out, facts, growing="settings", restart=args.restart)
    with progress_bar() as bar:
        task = bar.add_task(model, total=plan.steps(len(items)))
        run_plan(
            engine, items, plan, out, restart=args.restart, advance=lambda steps: bar.advance(task, steps)
        )
    reckoning = _reckoning(engine, plan, probe, samples)
    results = {
        "meta": _meta(model, engine, plan, len(samples)),
        "rows": report_rows(plan, Seen.read(out), reckoning),
        "refused": refused,
        "frames": kept_pictures(engine, settings, samples[0]) if plan.answers else [],
    }
    _report(results, out)


def _report(results: dict[str, Any], out: Path) -> None:
    from rich.console import Console

    from pipelines.measure.report.report import markdown_tables, write_report
    from pipelines.run.results import write_whole

    files = write_report(results, out)
    tables = markdown_tables(results)
    write_whole(out / "tables.md", tables)
    Console(markup=False, highlight=False).print(tables, soft_wrap=True)
    print(f"{out}: {', '.join(f.name for f in files)}")


def _reckoning(engine: Engine, plan: Plan, probe: TrainingClip, samples: Sequence[Sample]) -> Reckoning:
    from statistics import median_high

    from pipelines.measure.results import Reckoning
    from videoprune.models.shapes import model_shape

    clip = engine.encode([probe.frames])[0]
    return Reckoning(
        model_shape(engine.model.config),
        text=median_high(engine.text_tokens(clip, s) for s in samples[:30]),
        new_tokens=4 if plan.answers else plan.max_new_tokens,
        size=engine.frame_size,
        bytes_per_value=next(engine.model.parameters()).itemsize,
    )


def _meta(model: str, engine: Engine, plan: Plan, questions: int) -> dict[str, Any]:
    import torch

    from pipelines.measure.environment import hardware, hardware_line, versions

    config: Any = engine.model.config
    text = getattr(config, "text_config", config)
    return {
        "dataset": "MovingShapes",
        "model": model,
        "hardware": hardware_line(hardware()),
        "versions": versions(),
        "digest": ",".join(s.config.digest() for s in plan.settings[:3]),
        "command": "videoprune " + " ".join(sys.argv[1:]),
        "attention": getattr(text, "_attn_implementation", None) or "sdpa",
        "dtype": str(next(engine.model.parameters()).dtype).removeprefix("torch."),
        "runs": plan.runs,
        "questions": questions if plan.answers else 0,
        "accuracy_measured": plan.answers,
        "threads": torch.get_num_threads(),
    }
