"""Measures what pruning needs to know about a model, on clips of the training distribution, never on test
clips.

Ranks: METEOR shares the encoder budget by the rank of each encoder's features at its three cuts. Lambda:
adaptive LLM pruning keeps lambda times the text's attention to visual tokens; it is solved for the preset's
`llm.keep`.

Shapes: T frames, F all frames of a batch, S side in pixels, N tokens, D width.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from pipelines.configuring import load_prune
from pipelines.run.progress import progress_bar
from pipelines.run.results import write_whole
from pipelines.run.stages import with_prune
from videoprune.config import PruneConfig, preset, preset_names
from videoprune.engine import AnyEngine, Engine, open_engine
from videoprune.eval.benchmarks.moving_shapes.plan import TEST_SEEDS
from videoprune.eval.benchmarks.moving_shapes.questions import questions, with_options
from videoprune.eval.benchmarks.moving_shapes.render import render
from videoprune.eval.benchmarks.moving_shapes.scene import sample_scene
from videoprune.models.early import stage_features
from videoprune.models.loading import demo_names, model_folder
from videoprune.models.multi_encoder import MultiEncoderVLM, calibration_key
from videoprune.prune.adaptive import solve_lambda
from videoprune.prune.diversity import effective_rank, numerical_rank
from videoprune.types import Sample, VideoFrames

RankKind = Literal["effective", "numerical"]
QUESTIONS_PER_CLIP = 3
TOLERANCE = 0.0025  # of the share of tokens kept; a token is about a thousandth
_LARGEST_LAMBDA = 2.0**40


@dataclass(frozen=True)
class TrainingClip:
    """A clip that no benchmark holds, and questions about it."""

    frames: VideoFrames
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Solved:
    """A lambda, the share of the fused tokens that it keeps, averaged over layers and questions, and their number."""

    lambda_: float
    share: float
    tokens: float = 0.0


def training_clips(count: int, num_frames: int, size: int) -> list[TrainingClip]:
    """`count` clips of `num_frames` frames (S = size), from seeds that the benchmark never uses."""
    return [_training_clip(TEST_SEEDS + i, num_frames, size) for i in range(count)]


def clips_like(engine: AnyEngine, count: int) -> list[TrainingClip]:
    """`training_clips` as `engine` is best given them; 448 x 448 where frames of any size will do."""
    return training_clips(count, engine.num_frames, (engine.frame_size or (448, 448))[0])


def encoder_ranks(
    model: MultiEncoderVLM, clips: Sequence[TrainingClip], kind: RankKind = "effective"
) -> dict[str, list[float]]:
    """Rank of each encoder's unpruned features at METEOR's three cuts, averaged over all frames."""
    if kind not in get_args(RankKind):
        raise ValueError(f"rank={kind!r}; allowed: {', '.join(get_args(RankKind))}")
    measure = effective_rank if kind == "effective" else numerical_rank
    return {
        one.name: [
            round(sum(at_cut) / len(at_cut), 4)
            for at_cut in zip(*(_ranks(model, one, clip, measure) for clip in clips), strict=True)
        ]
        for one in model.towers
    }


def solve(
    engine: AnyEngine,
    clips: Sequence[TrainingClip],
    prune: PruneConfig,
    step: Callable[[], None] = lambda: None,
) -> Solved:
    """The lambda at which `prune`, whose LLM stage is adaptive, keeps `llm.keep` of the fused tokens.

    step: called after each pass over the clips. Raises ValueError if no lambda comes close enough.
    """
    encoder = with_prune(engine, prune.replace(**{"llm.lambda_": 0.0}))
    encoded = [(encoder.encode([clip.frames])[0], clip.samples) for clip in clips]
    seen: dict[float, float] = {}
    tokens = 0.0

    def share(lambda_: float) -> float:
        nonlocal tokens
        if lambda_ not in seen:
            changed = with_prune(engine, prune.replace(**{"llm.lambda_": lambda_}))
            seen[lambda_], tokens = _kept_share(changed, encoded)
            step()
        return seen[lambda_]

    wanted, high = prune.llm.keep, 1.0
    while share(high) < wanted - TOLERANCE and high < _LARGEST_LAMBDA:
        high *= 4
    low = high / 4 if high > 1 else 0.0
    try:
        found = solve_lambda(share, wanted, low=low, high=high, tolerance=TOLERANCE)
    except ValueError as error:
        raise ValueError(f"llm.keep={wanted} cannot be calibrated: {error}") from error
    # Rounded, it must still do what was measured.
    found = float(f"{found:.6g}")
    return Solved(found, share(found), tokens)


def save_calibration(folder: Path, ranks: dict[str, list[float]], lambdas: dict[str, float]) -> str:
    """Put ranks and lambdas into the model's config.json, and tell where; lambdas of other settings stay."""
    path = folder / "config.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    data["encoder_ranks"] = ranks
    data["lambdas"] = dict(sorted({**data.get("lambdas", {}), **lambdas}.items()))
    write_whole(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    return str(path)


def save_stock_calibration(folder: Path, solved: dict[str, Solved]) -> str:
    """Put lambdas, and the tokens they were found for, under `videoprune` in a stock model's config.json."""
    path = folder / "config.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    own = data.setdefault("videoprune", {})
    new = {k: {"lambda": s.lambda_, "tokens": round(s.tokens, 2)} for k, s in solved.items()}
    own["lambdas"] = dict(sorted({**own.get("lambdas", {}), **new}.items()))
    write_whole(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    return str(path)


def run(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    """`videoprune calibrate`."""
    names = [args.prune] if args.prune else [n for n in preset_names() if preset(n).llm.method == "adaptive"]
    wanted = {name: load_prune(name, overrides) for name in names}
    engine = open_engine(args.model, PruneConfig(), device=args.device)
    clips = clips_like(engine, args.clips)
    ranks: dict[str, list[float]] = {}
    if isinstance(engine, Engine):
        engine.model.config.encoder_ranks = ranks = encoder_ranks(engine.model, clips, args.rank)
    solved: dict[str, Solved] = {}
    refused: dict[str, str] = {}
    with progress_bar() as bar:
        for name, prune in wanted.items():
            if prune.llm.method == "adaptive" and prune.llm.lambda_ is None:
                task = bar.add_task(f"lambda of {name}", total=None)
                try:
                    solved[name] = solve(engine, clips, prune, lambda task=task: bar.advance(task))  # type: ignore[misc]
                except ValueError as error:
                    if args.prune:
                        raise
                    refused[name] = str(error)  # one preset that the model cannot do leaves the others
    found = {calibration_key(wanted[name]): one for name, one in solved.items()}
    where = "nowhere: give llm.lambda_=... of this table after the arguments"
    if isinstance(engine, Engine):
        where = save_calibration(model_folder(args.model), ranks, {k: s.lambda_ for k, s in found.items()})
    elif args.model in demo_names() or Path(args.model).is_dir():
        where = save_stock_calibration(model_folder(args.model), found)
    _print(ranks, solved, wanted, where)
    for name, reason in refused.items():
        print(f"{name}: not calibrated: {reason}", file=sys.stderr)
    return 0


def _training_clip(seed: int, num_frames: int, size: int) -> TrainingClip:
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng)
    times = (np.arange(num_frames) + 0.5) / num_frames * scene.duration
    # Drawn at twice the side and averaged down, as the benchmark's clips are.
    pixels, _ = render(scene, times, 2 * size)
    small = pixels.reshape(num_frames, size, 2, size, 2, 3).mean((2, 4)).round().astype(np.uint8)
    frames = VideoFrames(
        torch.from_numpy(small), tuple(map(float, times)), scene.duration, f"seed {seed}", "drawn"
    )
    asked = questions(scene, rng)
    chosen = rng.permutation(len(asked))[:QUESTIONS_PER_CLIP]
    samples = []
    for i in chosen:
        options, letter = with_options(asked[i], rng)
        samples.append(Sample(f"{seed}-{i}", frames.path, asked[i].text, tuple(options), letter))
    return TrainingClip(frames, tuple(samples))


@torch.no_grad()
def _ranks(
    model: MultiEncoderVLM, tower: object, clip: TrainingClip, measure: Callable[[Tensor], Tensor]
) -> list[float]:
    """One clip's mean rank at each cut."""
    values = model.pixel_values(clip.frames.pixels.to(model.device), tower)  # type: ignore[arg-type]
    return [float(measure(x.float()).double().mean()) for x in stage_features(tower, values)]  # type: ignore[arg-type]


def _kept_share(engine: AnyEngine, encoded: Sequence[tuple[Any, tuple[Sample, ...]]]) -> tuple[float, float]:
    """Share of the fused tokens that the LLM's layers see, and how many are fused, averaged over questions."""
    traces = [
        answer.trace
        for tokens, samples in encoded
        for answer in engine.answer(tokens, samples, max_new_tokens=1)
    ]
    shares = [t.llm_average / t.fused for t in traces]
    return sum(shares) / len(shares), sum(t.fused for t in traces) / len(traces)


def _print(
    ranks: dict[str, list[float]],
    solved: dict[str, Solved],
    wanted: dict[str, PruneConfig],
    where: str,
) -> None:
    console = Console(markup=False, highlight=False)
    if ranks:
        table = Table("encoder", "rank at cut 1", "cut 2", "cut 3")
        for name, values in ranks.items():
            table.add_row(name, *(f"{value:.2f}" for value in values))
        console.print(table)
    if solved:
        table = Table("setting", "wanted share", "lambda", "share reached")
        for name, found in solved.items():
            keep = wanted[name].llm.keep
            table.add_row(name, f"{keep:g}", f"{found.lambda_:g}", f"{found.share:.4f}")
        console.print(table)
    console.print(f"written to {where}", soft_wrap=True)
