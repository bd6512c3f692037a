"""How many tokens survive where, known before any pixel: behind encoders, behind the fusion, at the LLM's cuts.

A unit is what becomes one token of the LLM.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

from videoprune.config import EncoderPrune, LLMPrune, PruneConfig
from videoprune.prune.adaptive import geometric_ratios
from videoprune.prune.budget import encoder_budget, meteor_counts
from videoprune.prune.kinds import Depth
from videoprune.prune.meteor import NUM_CUTS
from videoprune.prune.registry import BY_FRAME, INSIDE, LLM, OVER_CLIP

_COMPARED_AT = 0.25


class Encoder(Protocol):
    """What the budget needs to know of an encoder."""

    @property
    def name(self) -> str: ...

    @property
    def dense(self) -> int: ...


def kept_units(units: int, keep: float) -> int:
    """Units of a frame that leave the encoder."""
    return min(units, max(1, round(keep * units)))


def kept_of_clip(frames: int, units: int, keep: float) -> int:
    """Units of a whole clip that leave the encoder where one budget spans its frames, at least one a frame."""
    return min(frames * units, max(frames, round(keep * frames * units)))


def retained_count(prune: PruneConfig, frames: int, units: int, *, pools: bool = False) -> int:
    """Tokens of one clip that stages 1 and 2 of a model with one encoder hand to the LLM, known before any pixel.

    frames: of the encoder. units: of a frame, behind the pooling where tokens are chosen there (pools). Raises
    ValueError for a method that shows how many it keeps only when it has seen the clip.
    """
    encoder, fusion = prune.encoder, prune.fusion
    keep = encoder.keep if encoder.method != "none" else 1.0
    fuse = fusion.keep if fusion.method != "none" else 1.0
    over_clip = OVER_CLIP.get(encoder.method) if keep < 1 else None
    if over_clip is not None and not over_clip.exact:
        exact = ", ".join(name for name, method in OVER_CLIP.items() if method.exact)
        raise ValueError(
            f"encoder.method={encoder.method!r} comes only near its count; allowed where that must be known before the "
            f"clip is seen: {', '.join((*INSIDE, *BY_FRAME))}, {exact}"
        )
    fused = kept_of_clip(frames, units, keep * fuse)
    if pools:
        return fused
    one_budget = over_clip is not None or comparing_block(encoder, keep, blocks=1) is not None
    left = kept_of_clip(frames, units, keep) if one_budget else frames * kept_units(units, keep)
    return min(left, fused) if fuse < 1 else left


def removals(config: EncoderPrune, depth: Depth) -> tuple[int, ...]:
    """Units to remove after each of the blocks that the LLM's features come from; none where the method chooses at
    the encoder's end. Raises ValueError if `encoder.schedule` cannot reach the count."""
    if config.method not in INSIDE or depth.final == depth.units:
        return (0,) * depth.num_blocks
    return INSIDE[config.method].removals(config, depth)


def comparing_block(config: EncoderPrune, keep: float, blocks: int) -> int | None:
    """The block after which frames are compared with each other; None: never. Tokens merge over time after a quarter of
    the blocks; budgets alone are made after the first."""
    wanted = config.temporal or config.frames == "novelty"
    if config.method not in INSIDE or not INSIDE[config.method].by_content or keep == 1 or not wanted:
        return None
    return math.floor(_COMPARED_AT * blocks) if config.temporal else 0


def retained_counts(
    towers: Sequence[Encoder], config: EncoderPrune, ranks: dict[str, list[float]] | None
) -> dict[str, tuple[int, ...]]:
    """Patch tokens of a frame after each of METEOR's three cuts, by encoder; the last is what leaves the encoder.

    The total after each cut falls geometrically to `config.keep` of the dense tokens and is shared by
    `config.budget` (METEOR, section 3.2). A method over the clip takes nothing before the fusion. ranks: by encoder,
    one per cut. Raises ValueError if `budget="rank"` or `"reverse"` and ranks are missing.
    """
    dense = [t.dense for t in towers]
    if config.method == "none" or config.keep == 1 or config.method in OVER_CLIP:
        return {t.name: (t.dense,) * NUM_CUTS for t in towers}
    final = max(round(config.keep * sum(dense)), len(towers))
    rows: list[tuple[int, ...]] = []
    capacity = tuple(dense)
    for cut, total in enumerate(meteor_counts(sum(dense), final, NUM_CUTS)):
        at_cut = None if ranks is None else [ranks[t.name][cut] for t in towers]
        capacity = encoder_budget(min(total, sum(capacity)), capacity, rule=config.budget, ranks=at_cut)
        rows.append(capacity)
    return {t.name: tuple(r[i] for r in rows) for i, t in enumerate(towers)}


def fused_count(arrived: int, config: PruneConfig, frames: int) -> int:
    """Tokens of a clip of so many frames that leave the fusion of several encoders; a method over the clip takes its
    share there too."""
    if config.encoder.method in OVER_CLIP and config.encoder.keep < 1:
        keep = max(1, round(config.encoder.keep * arrived))
        arrived = OVER_CLIP[config.encoder.method].count(frames, arrived // frames, keep)
    return arrived if config.fusion.method == "none" else max(1, round(config.fusion.keep * arrived))


def cut_layers(config: LLMPrune, num_layers: int) -> tuple[int, ...]:
    """Layers, counted from 0, before which tokens leave: those of the method, else of `llm.layers`, never layer 0."""
    shares = _own_shares(config, num_layers)
    if shares is not None:
        return tuple(sorted(shares))
    return tuple(sorted({_cut_layer(f, num_layers) for f in config.layers}))


def cut_ratios(config: LLMPrune, num_layers: int) -> tuple[float, ...]:
    """Share of the fused tokens that each of `cut_layers` leaves: `ratios`, or the geometric row that gives `keep`,
    which is also what `adaptive` is reckoned with; or what the method says itself.

    Where a model is so shallow that several fractions fall on one layer, the last of their ratios counts.
    """
    shares = _own_shares(config, num_layers)
    if shares is not None:
        return tuple(shares[layer] for layer in sorted(shares))
    if not config.ratios or by_lambda(config):
        return geometric_ratios(config.keep, cut_layers(config, num_layers), num_layers)
    ends = {_cut_layer(f, num_layers): r for f, r in zip(config.layers, config.ratios, strict=True)}
    return tuple(ends[layer] for layer in sorted(ends))


def kept_at_cut(fused: int, ratio: float, config: LLMPrune) -> int:
    """The share `ratio` of the `fused` tokens that entered the LLM; one at least, unless text alone is to stay."""
    ways: dict[str, Callable[[float], int]] = {"nearest": round, "up": math.ceil, "down": math.floor}
    return max(1 if ratio else 0, ways[config.rounding](fused * ratio))


def by_lambda(config: LLMPrune) -> bool:
    """Whether the tokens that the LLM keeps are counted by `llm.lambda_`."""
    return config.method in LLM and LLM[config.method].by_lambda


def lambda_is_open(config: LLMPrune) -> bool:
    """Whether the tokens are counted by a lambda that the configuration leaves to the model's calibration."""
    return by_lambda(config) and config.lambda_ is None


def with_fixed_shares(prune: PruneConfig) -> PruneConfig:
    """What becomes of it where no lambda was found for the model: fixed shares of the same average."""
    return prune.replace(**{"llm.method": "fixed"}) if lambda_is_open(prune.llm) else prune


def _own_shares(config: LLMPrune, num_layers: int) -> dict[int, float] | None:
    return LLM[config.method].shares(config, num_layers) if config.method in LLM else None


def _cut_layer(fraction: float, num_layers: int) -> int:
    return min(max(round(fraction * num_layers), 1), num_layers - 1)
