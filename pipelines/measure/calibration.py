"""What pruning needs to know about a model, measured on clips of the training distribution, never on test clips.

Ranks: METEOR shares the encoder budget by the rank of each encoder's features at its three cuts. Lambda:
adaptive LLM pruning keeps lambda times the text's attention to visual tokens; it is solved for the preset's
`llm.keep`.

Shapes: T frames, F all frames of a batch, S side in pixels, N tokens, D width.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from pipelines.run.results import write_whole
from videoprune.config import PruneConfig
from videoprune.engine import Engine
from videoprune.eval.benchmarks.moving_shapes.plan import TEST_SEEDS
from videoprune.eval.benchmarks.moving_shapes.questions import questions, with_options
from videoprune.eval.benchmarks.moving_shapes.render import render
from videoprune.eval.benchmarks.moving_shapes.scene import sample_scene
from videoprune.models.multi_encoder import MultiEncoderVLM
from videoprune.plug.families.tower import Tower
from videoprune.plug.settings import calibration_key, own_settings
from videoprune.prune.adaptive import solve_lambda
from videoprune.prune.counts import lambda_is_open
from videoprune.prune.diversity import effective_rank, numerical_rank
from videoprune.prune.meteor import cut_blocks
from videoprune.types import Encoded, Sample, VideoFrames

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


def clips_like(engine: Engine, count: int, num_frames: int | None = None) -> list[TrainingClip]:
    """`training_clips` as `engine` is best given them, or of `num_frames` frames; 448 x 448 where any size will do."""
    return training_clips(count, num_frames or engine.num_frames, (engine.frame_size or (448, 448))[0])


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
    engine: Engine,
    clips: Sequence[TrainingClip],
    prune: PruneConfig,
    step: Callable[[], None] = lambda: None,
) -> Solved:
    """The lambda at which `prune`, whose LLM stage is adaptive, keeps `llm.keep` of the fused tokens.

    step: called after each pass over the clips. Raises ValueError if no lambda comes close enough.
    """
    encoder = engine.with_prune(prune.replace(**{"llm.lambda_": 0.0}))
    encoded = [(encoder.encode([clip.frames]), clip.samples) for clip in clips]
    seen: dict[float, float] = {}
    tokens = 0.0

    def share(lambda_: float) -> float:
        nonlocal tokens
        if lambda_ not in seen:
            changed = engine.with_prune(prune.replace(**{"llm.lambda_": lambda_}))
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


def needs_lambda(engine: Engine, prune: PruneConfig) -> bool:
    """Whether `prune` leaves its lambda to the model, and the model has none for it."""
    return lambda_is_open(prune.llm) and calibration_key(prune) not in _known_lambdas(engine.model.config)


def with_lambda(
    engine: Engine, prune: PruneConfig, kept: Path, name: str, clips: Callable[[], Sequence[TrainingClip]]
) -> PruneConfig:
    """`prune` with the lambda that stands under `name` in the file `kept`; it is solved for where none does."""
    known = json.loads(kept.read_text()) if kept.exists() else {}
    if name not in known:
        print(f"solving for lambda: {name}", file=sys.stderr)
        known[name] = solve(engine, clips(), prune).lambda_
        write_whole(kept, json.dumps(known, indent=1) + "\n")
    return prune.replace(**{"llm.lambda_": known[name]})


def save_calibration(folder: Path, ranks: Mapping[str, list[float]], solved: Mapping[str, Solved]) -> str:
    """Put ranks and lambdas into the model's config.json, and tell where; lambdas of other settings stay.

    ranks: empty for a stock model, whose lambdas stand under `videoprune` with the tokens they were found for.
    """
    path = folder / "config.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    own: dict[str, Any] = data if ranks else data.setdefault("videoprune", {})
    new: dict[str, Any] = {k: s.lambda_ for k, s in solved.items()}
    if ranks:
        own["encoder_ranks"] = ranks
    else:
        new = {k: {"lambda": s.lambda_, "tokens": round(s.tokens, 2)} for k, s in solved.items()}
    own["lambdas"] = dict(sorted({**own.get("lambdas", {}), **new}.items()))
    write_whole(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    return str(path)


def _known_lambdas(config: Any) -> Mapping[str, Any]:
    """Of a model of several encoders they are part of its configuration, of a stock model an addition to it."""
    found: Mapping[str, Any] = getattr(config, "lambdas", None) or own_settings(config).get("lambdas", {})
    return found


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
    model: MultiEncoderVLM, tower: Tower, clip: TrainingClip, measure: Callable[[Tensor], Tensor]
) -> list[float]:
    """One clip's mean rank at each cut."""
    values = model.pixel_values(clip.frames.pixels.to(model.device), tower)
    at_cuts = tower.features_behind(list(cut_blocks(len(tower.blocks))), values)
    return [float(measure(x.float()).double().mean()) for x in at_cuts]


def _kept_share(
    engine: Engine, encoded: Sequence[tuple[Sequence[Encoded], tuple[Sample, ...]]]
) -> tuple[float, float]:
    """Share of the fused tokens that the LLM's layers see, and how many are fused, averaged over questions."""
    traces = [
        answer.trace for clip, samples in encoded for answer in engine.answer(clip, samples, max_new_tokens=1)
    ]
    shares = [t.llm_average / t.fused for t in traces]
    return sum(shares) / len(shares), sum(t.fused for t in traces) / len(traces)
