"""`videoprune eval NAME`: scores a model on a benchmark."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.arguments import (
    BENCHMARKS,
    TRANSFORMERS,
    VLLM,
    Commands,
    add_data,
    add_memory,
    add_model,
    add_protocol,
    add_prune,
    add_remote,
    at_least_at_most,
    command,
    count,
    shard,
)

if TYPE_CHECKING:
    from pipelines.run.evaluation import Runner
    from pipelines.run.stages import DecodeStage
    from pipelines.run.status import ActorStatus
    from pipelines.run.stream_run import StreamOptions
    from pipelines.run.tasks import Task
    from videoprune.config import PruneConfig
    from videoprune.video.remote.options import RemoteOptions


def add(commands: Commands) -> None:
    ev = command(commands, "eval", "Score a model on a benchmark.", run, overrides=True)
    ev.add_argument("benchmark", choices=("moving-shapes", *BENCHMARKS))
    add_protocol(ev)
    ev.add_argument("--subtitles", action="store_true", help="videomme: with subtitles in the prompt")
    ev.add_argument("--shard", type=shard, metavar="I/N", help="only part I of N, by video")
    ev.add_argument("--frames", type=count, metavar="N", help="frames per clip (default: the protocol's)")
    ev.add_argument("--max-new-tokens", type=count, metavar="N", help="(default: the protocol's)")
    add_prune(ev)
    ev.add_argument(
        "--executor",
        default="local",
        choices=("local", "ray", "stream"),
        help="stream: each video is played once, and asked about as it goes, from a memory that stays bounded",
    )
    ev.add_argument(
        "--engine",
        default=TRANSFORMERS,
        choices=(TRANSFORMERS, VLLM),
        help="vllm: answers by vLLM, pruned inside it (docs/vllm.md); --batch questions are given to it at once",
    )
    add_memory(ev)
    ev.add_argument("--out", metavar="DIR", help="results.jsonl and summary.json (default: below runs/eval)")
    ev.add_argument("--restart", action="store_true", help="empty --out first")
    ev.add_argument(
        "--batch",
        type=count,
        default=16,
        metavar="N",
        help="questions in one call of the LLM, of one video or several (default: 16)",
    )
    ev.add_argument(
        "--workers",
        type=at_least_at_most,
        default=(1, 1),
        metavar="N[:M]",
        help="ray: decoding actors beside each model, N, or from N to M as the model needs them (default: 1)",
    )
    ev.add_argument("--models", type=count, default=1, metavar="N", help="ray: model actors (default: 1)")
    ev.add_argument(
        "--plan",
        action="store_true",
        help="only tell, from a few videos, how long all would take, what waits, how many workers; keeps nothing",
    )
    ev.add_argument(
        "--ray-address",
        metavar="HOST:PORT",
        help="a running cluster, auto, or local (default: that of RAY_ADDRESS, else start one here)",
    )
    ev.add_argument(
        "--runtime-env",
        default="none",
        metavar="ENV",
        help="ray: what nodes get from here: none, code (this package), packages (also what it needs, by pip), or a "
        "YAML file of Ray's runtime_env (default: none)",
    )
    add_data(ev)
    add_remote(ev)
    add_model(ev)


def run(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Status 1 if a question had no video to be answered from."""
    from pipelines.configuring import load_prune
    from pipelines.run.evaluation import RunSettings, evaluate
    from pipelines.run.lost_device import LostDeviceError
    from pipelines.run.no_actors import NoActorsError
    from pipelines.run.results import model_fingerprint
    from pipelines.run.status import ActorStatus
    from pipelines.run.tasks import open_task
    from videoprune.video.folder import video_folder

    prune = load_prune(args.prune, overrides)
    engine = _engine(args, prune)
    if args.executor == "ray" and args.data:
        args.data = os.path.abspath(args.data)  # subtitles are read where the model is
    task = open_task(args, video_folder(args.videos) if args.videos else None)
    if args.executor == "stream":
        task = _as_stream(args, task)
    _tell_missing(task)
    if args.plan:
        return _tell_plan(args, task, prune)
    out = _out(args, task, prune)
    settings = RunSettings(args.model, model_fingerprint(args.model), prune, args.executor, engine)
    try:
        actors = ActorStatus()
        runner = _runner(args, task, prune, actors)
        summary = evaluate(task, runner, out, settings, restart=args.restart, actors=actors)
    except (LostDeviceError, NoActorsError) as error:
        print(f"videoprune: {error}; the same command goes on with what is missing", file=sys.stderr)
        return 1
    return _print_summary(summary, out, task.title)


def _engine(args: argparse.Namespace, prune: PruneConfig) -> str:
    """The engine with its version. Raises ValueError for what it cannot do, before anything is read or loaded."""
    if args.engine != VLLM:
        return str(args.engine)
    from pipelines.vllm.stage import check, version

    refused = {
        "--executor": (args.executor, args.executor == "stream", "local, ray"),
        "--runtime-env": (
            args.runtime_env,
            args.executor == "ray" and args.runtime_env in ("code", "packages"),
            "none or a YAML file, where vLLM and videoprune are installed by pip: vLLM finds plug-ins by that",
        ),
        "--plan": (True, args.plan, "a run without it"),
        "--device": (args.device, args.device is not None, "none, vLLM takes what it was built for"),
        "--random-weights": (True, args.random_weights, "trained weights"),
    }
    for name, (value, given, allowed) in refused.items():
        if given:
            raise ValueError(f"{name}={value} with --engine {VLLM}; allowed: {allowed}")
    check(args.model, prune)
    return f"{VLLM} {version()}"


def _model_stage(args: argparse.Namespace, task: Task, prune: PruneConfig) -> Any:
    """A ModelStage, or what stands in its place with another engine."""
    most = task.recipe.max_new_tokens
    if args.engine == VLLM:
        from pipelines.vllm.stage import VllmStage

        return VllmStage(args.model, prune, batch=args.batch, max_new_tokens=most)
    from pipelines.run.model_stage import ModelStage

    return ModelStage(args.model, prune, device=args.device, batch=args.batch, max_new_tokens=most)


def _decode_stage(args: argparse.Namespace, task: Task) -> DecodeStage:
    from pipelines.run.stages import DecodeStage
    from videoprune.models.loading import clip_shape
    from videoprune.video.remote.address import is_remote

    num_frames, size = clip_shape(args.model)
    recipe = task.recipe
    remote = _remote(args) if any(is_remote(s.video) for s in task.samples) else None
    return DecodeStage(recipe.frames or num_frames, size, **recipe.sampling(), remote=remote)


def _remote(args: argparse.Namespace) -> RemoteOptions:
    from videoprune.video.remote.options import RemoteOptions, default_folder

    return RemoteOptions(
        args.cache or default_folder(), args.cache_size, args.largest_video, float(args.fetch_seconds)
    )


def _runner(args: argparse.Namespace, task: Task, prune: PruneConfig, actors: ActorStatus) -> Runner:
    decode, model = _decode_stage(args, task), _model_stage(args, task, prune)
    if args.executor == "ray":
        from pipelines.run import ray

        model.model = os.path.abspath(model.model) if _is_folder(model.model) else model.model
        least, most = args.workers
        options = ray.RayOptions(
            least, args.models, most, address=args.ray_address, runtime_env=args.runtime_env
        )
        if decode.remote is not None:
            options = replace(options, item_seconds=options.item_seconds + decode.remote.seconds)
        return partial(ray.run, decode=decode, model=model, options=options, status=actors)
    if args.executor == "stream":
        from pipelines.run import stream_run

        return partial(stream_run.run, model=model, options=_stream_options(args), status=actors)
    from pipelines.run import local

    return partial(local.run, decode=decode, model=model, status=actors)


def _as_stream(args: argparse.Namespace, task: Task) -> Task:
    """The task with how it is watched among its facts. Raises ValueError for what only whole clips can."""
    from pipelines.run.tasks import STREAM

    if args.plan:
        raise ValueError("--plan with --executor stream; allowed: local, ray")
    if args.frames:
        raise ValueError(f"--frames {args.frames} with --executor stream; allowed: --stream-fps")
    return replace(
        task, label=f"{task.label}stream-", facts={**task.facts, STREAM: asdict(_stream_options(args))}
    )


def _stream_options(args: argparse.Namespace) -> StreamOptions:
    from pipelines.run.stream_run import StreamOptions
    from videoprune.stream import StreamConfig

    memory = StreamConfig(
        max_visual_tokens=args.max_visual_tokens, max_steps=args.max_steps, window=args.window
    )
    return StreamOptions(args.stream_fps, memory)


def _is_folder(model: str) -> bool:
    from videoprune.models.loading import demo_names

    return model not in demo_names() and os.path.isdir(model)


def _tell_plan(args: argparse.Namespace, task: Task, prune: PruneConfig) -> int:
    from pipelines.run.forecast import forecast_text, try_videos

    items = task.items()
    tried = try_videos(items, _decode_stage(args, task), _model_stage(args, task, prune))
    print(forecast_text(tried, items, models=args.models, workers=args.workers))
    return 0


def _tell_missing(task: Task) -> None:
    """Before the model is loaded: a wrong folder shows at once, not after the run."""
    if task.standing:
        print(
            f"{task.standing} standing questions are left out: --executor stream asks those", file=sys.stderr
        )
    missing = task.missing()
    if missing:
        videos = len({s.video for s in task.samples})
        print(
            f"{len(missing)} of {videos} videos are missing, their questions will fail; first: {missing[0]}",
            file=sys.stderr,
        )


def _out(args: argparse.Namespace, task: Task, prune: PruneConfig) -> Path:
    """Shards write beside each other: two processes must not write one file."""
    digests = "-".join(filter(None, (prune.digest(), task.digest())))
    engine = f"{VLLM}-" if args.engine == VLLM else ""
    name = f"{task.label}{engine}{Path(args.model).name}-{Path(args.prune).stem}-{digests}"
    out = Path(args.out or f"runs/eval/{name}")
    return out / f"shard-{args.shard[0]}-of-{args.shard[1]}" if args.shard else out


def _print_summary(summary: Mapping[str, Any], out: Path, title: str) -> int:
    from rich.console import Console

    from pipelines.printing import cost_line, print_accuracy, print_scores

    counts = summary["counts"]
    console = Console(markup=False, highlight=False)
    title = f"{summary['model']['name']} on {title}"
    if summary.get("scores"):
        print_scores(summary["scores"], title, console)
    else:
        print_accuracy(summary, title, console)
    if "scores_reason" in summary:
        print(f"not scored: {summary['scores_reason']}", file=sys.stderr)
    console.print(cost_line(summary), soft_wrap=True)
    console.print(
        f"{summary['questions_per_second']:.2f} questions per second; rows in {out}/results.jsonl",
        soft_wrap=True,
    )
    if counts["failed"]:
        print(
            f"{counts['failed']} of {counts['questions']} questions failed; their rows say why",
            file=sys.stderr,
        )
    return 1 if counts["failed"] else 0
