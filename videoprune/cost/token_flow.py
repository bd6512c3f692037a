"""How many tokens go where under a pruning configuration, known before any pixel: `token_flow`.

The counts are those of `early`, `vision_run` and `llm_prune`; the products are those of choosing tokens there. What the
pixels decide is taken on average: a merged frame's units are spread over its windows evenly, and adaptive pruning in
the LLM keeps `llm.keep` on a geometric row. Counts that were measured can be given instead.

Shapes: F frames, P prefix tokens (CLS), n patches of a frame, u patches of a unit, H heads, d head width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from videoprune.config import EncoderPrune, LLMPrune, PruneConfig
from videoprune.cost.shapes import (
    ConvShape,
    EncoderFlow,
    LanguageShape,
    ModelShape,
    Product,
    TokenFlow,
    VisionShape,
)
from videoprune.models.early import retained_counts
from videoprune.plug.encoder_pass import kept_of_clip, kept_units, removals
from videoprune.plug.llm_pass import cut_layers, cut_ratios
from videoprune.prune.budget import allocate
from videoprune.prune.meteor import cut_blocks
from videoprune.prune.over_clip import is_clip_method
from videoprune.prune.rivals.llm import AIM_ITERATIONS
from videoprune.prune.schedule import merge_counts


def token_flow(
    shape: ModelShape,
    config: PruneConfig,
    frames: int,
    *,
    prompt_tokens: int,
    size: tuple[int, int] | None = None,
    question_tokens: int | None = None,
    visual_by_layer: Sequence[float] | None = None,
) -> TokenFlow:
    """Tokens of one prompt with one clip.

    frames: of the video. prompt_tokens: of the unpruned prompt, visual ones included. size: height and width of
    frames in pixels, for encoders that take any. question_tokens: text behind the clip, which the LLM's cuts look
    at; None: all text. visual_by_layer: measured visual tokens of each LLM layer (for adaptive pruning); None: as
    the configuration wants. Raises ValueError for what does not fit the shape.
    """
    make = _fused_encoders if shape.fuses else _only_encoder
    encoders, dense, arrived = make(shape, config, frames, size)
    text = prompt_tokens - dense
    if text < 1:
        raise ValueError(f"prompt_tokens={prompt_tokens}; allowed: more than the {dense} visual tokens")
    fused, products = arrived, []
    if shape.fuses and config.fusion.method != "none":
        fused = max(1, round(config.fusion.keep * arrived))
        products += _fusion_products(shape, config, frames) if fused < arrived else []
    visual = _visual_by_layer(config.llm, fused, shape.language.layers)
    if visual_by_layer is not None:
        visual = tuple(round(n) for n in visual_by_layer)
        if len(visual) != shape.language.layers:
            raise ValueError(f"visual_by_layer: {len(visual)} counts; allowed: {shape.language.layers}")
    asking = text if question_tokens is None else question_tokens
    products += _cut_products(config.llm, shape.language, visual, text, asking)
    return TokenFlow(tuple(encoders), dense, visual, text, tuple(products))


def _only_encoder(
    shape: ModelShape, config: PruneConfig, frames: int, size: tuple[int, int] | None
) -> tuple[list[EncoderFlow], int, int]:
    """A stock model: its one encoder's flow, dense visual tokens, tokens that arrive at the LLM."""
    vision = shape.encoders[0]
    assert isinstance(vision, VisionShape)
    if frames < 1 or frames % vision.temporal:
        raise ValueError(f"frames={frames}; allowed: multiples of {vision.temporal}")
    frames, (rows, columns) = frames // vision.temporal, _grid(vision, size)
    side = vision.unit_side
    units = (rows // side) * (columns // side)
    inside = config.encoder.keep if config.encoder.method != "none" else 1.0
    fuse = config.fusion.keep if config.fusion.method != "none" else 1.0
    remove = (*removals(config.encoder, vision.used_blocks, units, inside),)
    flow = _vision_flow(
        vision, config.encoder, frames, units, remove, windows=_windows(vision, rows, columns)
    )
    pooled = math.ceil(rows / vision.pool) * math.ceil(columns / vision.pool) if vision.pool > 1 else units
    each = kept_units(pooled, inside)
    arrived = frames * pooled if vision.pool > 1 else frames * each  # what the choice over the clip looks at
    left = frames * each
    if fuse < 1 or vision.pool > 1 or is_clip_method(config.encoder.method):
        left = kept_of_clip(frames, pooled, inside * fuse)
    chosen_alike = config.encoder.method in ("none", "evoprune", "meteor") and config.fusion.method not in (
        "random",
        "uniform",
    )
    if left < arrived and chosen_alike and (fuse < 1 or vision.pool > 1):
        projected = vision.pool > 1 or not vision.projects_all  # else the choice falls before the projector
        width = shape.language.hidden if projected else vision.width
        flow = replace(flow, pruning=(*flow.pruning, (1, arrived, width, arrived)))
    return [flow], frames * pooled + shape.extra, left + shape.extra


def _fused_encoders(
    shape: ModelShape, config: PruneConfig, frames: int, size: tuple[int, int] | None
) -> tuple[list[EncoderFlow], int, int]:
    """A MultiEncoderVLM: flows of its encoders, dense visual tokens, tokens that arrive at the fusion."""
    counts = retained_counts(shape.encoders, config.encoder, shape.ranks)
    flows = [_tower_flow(e, config.encoder, frames, counts[e.name]) for e in shape.encoders]
    return flows, frames * sum(e.dense for e in shape.encoders), sum(f.left for f in flows)


def _tower_flow(
    shape: VisionShape | ConvShape, config: EncoderPrune, frames: int, counts: tuple[int, ...]
) -> EncoderFlow:
    dense, final = shape.dense, counts[-1]
    if isinstance(shape, ConvShape):
        products: list[Product] = []
        if config.method == "evoprune" and final < dense:
            products = _merge_rounds(frames, dense, final, shape.widths[-1])
        left = frames * final
        return EncoderFlow(frames, frames * dense, (), (), left, left, tuple(products))
    remove = [0] * shape.blocks
    if config.method == "evoprune" and final < dense:
        p = shape.prefix
        remove = list(merge_counts(shape.blocks, dense + p, final + p, config.schedule, protected=p))
    elif config.method == "meteor":
        before = dense
        for end, after in zip(cut_blocks(shape.blocks), counts, strict=True):
            remove[end] += before - after
            before = after
    flow = _vision_flow(shape, config, frames, dense, tuple(remove))
    return replace(flow, projected=frames * final, left=frames * final)


def _vision_flow(
    shape: VisionShape,
    config: EncoderPrune,
    frames: int,
    units: int,
    remove: Sequence[int],
    windows: Sequence[int] = (),
) -> EncoderFlow:
    """Stretches of every block, and the products of choosing, for frames of `units` units."""
    u = shape.unit_side**2
    stretches, products, taps, now, left = [], [], [], units, units
    for block in range(shape.blocks):
        windowed = windows and block not in shape.full_blocks
        each = _spread(now, windows) if windowed else (now,)
        stretches.append(tuple(n * u + shape.prefix for n in each) * frames)
        taps += [frames * now] if block in shape.taps else []
        gone = remove[block] if block < len(remove) else 0
        if gone:
            products += _step_products(shape, config, frames, left, first=left == units)
        left -= gone
        if block + 1 < shape.used_blocks:  # a cut behind the last used block shortens only what the LLM gets
            now = left
    rows = units if shape.projects_all else left
    return EncoderFlow(
        frames,
        frames * units * u,
        tuple(stretches),
        tuple(taps),
        frames * rows,
        frames * left,
        tuple(products),
    )


def _step_products(
    shape: VisionShape, config: EncoderPrune, frames: int, units: int, *, first: bool
) -> list[Product]:
    """Products of one merge (EvoPrune) or one cut (METEOR) of frames of `units` units."""
    if config.method == "meteor":
        return [] if first else _importance(shape, frames, units)
    products: list[Product] = []
    if config.lambda_att or math.floor(config.critical_ratio * units):
        products += _importance(shape, frames, units)
    width = shape.width // shape.heads if config.metric == "keys" else shape.width
    return [*products, _pairs(frames, units, width)]


def _importance(shape: VisionShape, frames: int, units: int) -> list[Product]:
    """Attention from CLS, or from all tokens where there is none."""
    n, d, rows = units * shape.unit_side**2 + shape.prefix, shape.width // shape.heads, frames * shape.heads
    if shape.prefix:
        return [(rows, 1, d, n)]
    return [(rows, n, d, n), (rows, 1, n, n)]


def _pairs(frames: int, tokens: int, width: int) -> Product:
    """Sources against destinations."""
    return (frames, -(-tokens // 2), width, tokens // 2)


def _merge_rounds(frames: int, tokens: int, final: int, width: int) -> list[Product]:
    """Merging what has left the encoder, at most half in a round."""
    found = []
    while tokens > final:
        found.append(_pairs(frames, tokens, width))
        tokens -= min(tokens - final, tokens // 2)
    return found


def _fusion_products(shape: ModelShape, config: PruneConfig, frames: int) -> list[Product]:
    if config.fusion.method != "cooperative":
        return []
    groups = frames if config.fusion.scope == "frame" else 1
    many = len(shape.encoders)
    return [(1, many, many, groups * shape.language.hidden)]


def _visual_by_layer(config: LLMPrune, fused: int, layers: int) -> tuple[int, ...]:
    if config.method == "none":
        return (fused,) * layers
    cuts = cut_layers(config, layers)
    ratios = cut_ratios(config, layers)
    found, now = [], fused
    for layer in range(layers):
        if layer in cuts:
            ratio = ratios[cuts.index(layer)]
            now = min(max(1 if ratio else 0, round(fused * ratio)), now)
        found.append(now)
    return tuple(found)


def _cut_products(
    config: LLMPrune, shape: LanguageShape, visual: Sequence[int], text: int, asking: int
) -> list[Product]:
    """At each cut: queries of the question, keys of all tokens, and their attention; for `aim` queries of all.

    The layer before a cut computes on as many tokens as arrive at the cut: `attention` changes nothing here.
    """
    if config.method not in ("adaptive", "fixed", "aim"):
        return []
    found: list[Product] = []
    for cut in cut_layers(config, shape.layers):
        n = visual[cut - 1] + text
        q = n if config.method == "aim" else 1 if config.queries == "last" else asking
        summed = (AIM_ITERATIONS * shape.heads, 1, n, n) if config.method == "aim" else (shape.heads, 1, q, n)
        found += [
            (1, q, shape.hidden, shape.heads * shape.head_dim),
            (1, n, shape.hidden, shape.kv_heads * shape.head_dim),
            (shape.heads, q, shape.head_dim, n),
            summed,
        ]
    return found


def _grid(shape: VisionShape, size: tuple[int, int] | None) -> tuple[int, int]:
    """Patches of a frame in rows and columns."""
    if shape.grid is not None:
        return shape.grid
    step = shape.patch_size * shape.unit_side
    if size is None or min(size) < step or size[0] % step or size[1] % step:
        raise ValueError(f"size={size}; allowed: height and width in multiples of {step} pixels")
    return size[0] // shape.patch_size, size[1] // shape.patch_size


def _windows(shape: VisionShape, rows: int, columns: int) -> tuple[int, ...]:
    """Units of each attention window of a frame."""
    if not shape.window_units:
        return ()
    down, across = (_pieces(n // shape.unit_side, shape.window_units) for n in (rows, columns))
    return tuple(a * b for a in down for b in across)


def _pieces(length: int, piece: int) -> list[int]:
    return [min(piece, length - start) for start in range(0, length, piece)]


def _spread(units: int, windows: Sequence[int]) -> tuple[int, ...]:
    """Units of each window, in proportion to what it held at first; empty ones are gone."""
    return tuple(n for n in allocate(units, windows, windows, minimum=0) if n)
