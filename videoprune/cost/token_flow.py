"""How many tokens go where under a pruning configuration, known before any pixel: `token_flow`.

The counts are those of `prune.counts`; the products are what each method of `prune.registry` says that choosing takes.
What the pixels decide is taken on average: a merged frame's units are spread over its windows evenly, and adaptive
pruning in the LLM keeps `llm.keep` on a geometric row. Counts that were measured can be given instead.

Shapes: F frames, P prefix tokens (CLS), n patches of a frame, u patches of a unit, H heads, d head width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from videoprune.config import EncoderPrune, FusionPrune, LLMPrune, PruneConfig
from videoprune.cost.shapes import (
    ConvShape,
    EncoderFlow,
    LanguageShape,
    ModelShape,
    TokenFlow,
    VisionShape,
)
from videoprune.prune.budget import allocate
from videoprune.prune.counts import (
    comparing_block,
    cut_layers,
    cut_ratios,
    fused_count,
    kept_at_cut,
    kept_of_clip,
    kept_units,
    removals,
    retained_counts,
)
from videoprune.prune.kinds import BlockSize, Depth, Product, attention_products
from videoprune.prune.llm_kinds import CutSize
from videoprune.prune.registry import BY_FRAME, FUSION, INSIDE, LLM, OVER_CLIP, ClipSize


def token_flow(
    shape: ModelShape,
    config: PruneConfig,
    frames: int,
    *,
    prompt_tokens: int,
    size: tuple[int, int] | None = None,
    question_tokens: int | None = None,
    visual_by_layer: Sequence[float] | None = None,
    frames_left: Sequence[int] | None = None,
) -> TokenFlow:
    """Tokens of one prompt with one clip.

    frames: of the video. prompt_tokens: of the unpruned prompt, visual ones included. size: height and width of
    frames in pixels, for encoders that take any. question_tokens: text behind the clip, which the LLM's cuts look
    at; None: all text. visual_by_layer: measured visual tokens of each LLM layer (for adaptive pruning); None: as
    the configuration wants. frames_left: measured frames behind each block behind which whole frames merge; None: as
    in a clip that stands still. Where tokens merge over time (`encoder.temporal`) or frames get budgets by what is
    new, that depends on the clip: reckoned is one in which nothing stands still and all frames get the same, which
    costs most. Raises ValueError for what does not fit the shape.
    """
    if shape.fuses:
        encoders, dense, arrived = _fused_encoders(shape, config, frames)
    else:
        encoders, dense, arrived = _only_encoder(shape, config, frames, size, frames_left)
    text = prompt_tokens - dense
    if text < 1:
        raise ValueError(f"prompt_tokens={prompt_tokens}; allowed: more than the {dense} visual tokens")
    fused, products = arrived, []
    if shape.fuses:
        fused = fused_count(arrived, config, frames)
        products += _fusion_products(shape, config, frames, arrived)
    visual = _visual_by_layer(config.llm, fused, shape.language.layers)
    if visual_by_layer is not None:
        visual = tuple(round(n) for n in visual_by_layer)
        if len(visual) != shape.language.layers:
            raise ValueError(f"visual_by_layer: {len(visual)} counts; allowed: {shape.language.layers}")
    asking = text if question_tokens is None else question_tokens
    products += _cut_products(config.llm, shape.language, fused, visual, text, asking)
    return TokenFlow(tuple(encoders), dense, visual, text, tuple(products))


def _only_encoder(
    shape: ModelShape,
    config: PruneConfig,
    frames: int,
    size: tuple[int, int] | None,
    frames_left: Sequence[int] | None,
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
    compared = comparing_block(config.encoder, inside, vision.used_blocks)
    start = 0 if compared is None else compared + 1
    final = kept_units(units, inside)
    if compared is not None:  # one budget for the clip, whose frames differ by a token
        final = math.ceil(kept_of_clip(frames, units, inside) / frames)
    depth = Depth(vision.used_blocks - start, units, final, vision.prefix)
    remove = (0,) * start + removals(config.encoder, depth)
    merged = _frames_left(vision, config.encoder, frames, frames_left)
    flow = _vision_flow(
        vision, config.encoder, frames, units, remove, windows=_windows(vision, rows, columns), merged=merged
    )
    pooled = math.ceil(rows / vision.pool) * math.ceil(columns / vision.pool) if vision.pool > 1 else units
    each = kept_units(pooled, inside)
    over_clip = config.encoder.method in OVER_CLIP and inside < 1
    # What the choice over the clip looks at.
    steps = [frames, *merged.values()]
    last = steps[-1]
    arrived = last * pooled if vision.pool > 1 or over_clip else frames * each
    left = frames * each
    if compared is not None and vision.pool == 1:
        arrived = left = kept_of_clip(frames, units, inside)
    if fuse < 1 or vision.pool > 1 or over_clip:
        left = kept_of_clip(frames, pooled, inside * fuse)
    if over_clip:
        left = OVER_CLIP[config.encoder.method].count(last, pooled, left)
    choosing = [] if left == arrived else _clip_products(vision, shape.language, config, last, arrived, left)
    if merged:  # attention is looked at once, before the last of the merges
        choosing = attention_products(_last_block(vision, steps[-2], units))
    if compared is not None:  # each place with itself one frame before
        choosing = [*choosing, (frames * units, 1, vision.width, 1)]
    flow = replace(flow, pruning=(*flow.pruning, *choosing))
    return [flow], frames * pooled + shape.extra, left + shape.extra


def _frames_left(
    vision: VisionShape, config: EncoderPrune, frames: int, measured: Sequence[int] | None
) -> dict[int, int]:
    """Frames that are left, by the block behind which whole frames merge; empty where none do."""
    method = OVER_CLIP.get(config.method)
    if method is None or method.merging is None or config.keep == 1:
        return {}
    blocks = method.merging.blocks(vision.used_blocks)
    if measured is not None and len(measured) != len(blocks):
        raise ValueError(f"frames_left={tuple(measured)}; allowed: {len(blocks)} counts")
    found = {}
    for i, block in enumerate(blocks):
        frames = method.merging.left(frames) if measured is None else measured[i]
        found[block] = frames
    return found


def _last_block(vision: VisionShape, frames: int, units: int) -> BlockSize:
    """What a method over the clip looks at in the encoder, patch by patch."""
    patches = units * vision.unit_side**2
    return BlockSize(frames, patches, vision.width, vision.heads, prefix=vision.prefix)


def _clip_products(
    vision: VisionShape, llm: LanguageShape, config: PruneConfig, frames: int, arrived: int, left: int
) -> list[Product]:
    """Choosing `left` of the `arrived` tokens of a clip of one encoder: a method over the clip, or stage 2."""
    encoder, fusion = config.encoder.method, config.fusion.method
    projected = vision.pool > 1 or not vision.projects_all  # else the choice falls before the projector
    width, each = llm.hidden if projected else vision.width, arrived // frames
    if encoder in OVER_CLIP:
        last = _last_block(vision, frames, vision.dense if vision.pool > 1 else each)
        looked = attention_products(last) if "attention" in OVER_CLIP[encoder].needs else []
        size = ClipSize(frames, each, width, vision.width // vision.heads)
        return [*looked, *OVER_CLIP[encoder].products(size, left)]
    if vision.pool > 1:
        if encoder in BY_FRAME:
            return []  # behind pooling a control takes stage 2's place
        fusion = "cooperative" if fusion == "none" else fusion
    return [] if fusion == "none" else FUSION[fusion].within_operations(arrived, width)


def _fused_encoders(
    shape: ModelShape, config: PruneConfig, frames: int
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
        if config.method in INSIDE:
            size = BlockSize(frames, dense, shape.widths[-1], heads=1)
            products = INSIDE[config.method].at_end_operations(config, size, final)
        left = frames * final
        return EncoderFlow(frames, frames * dense, (), (), left, left, tuple(products))
    remove = removals(config, Depth(shape.blocks, dense, final, shape.prefix, cuts=counts))
    flow = _vision_flow(shape, config, frames, dense, remove)
    return replace(flow, projected=frames * final, left=frames * final)


def _vision_flow(
    shape: VisionShape,
    config: EncoderPrune,
    frames: int,
    units: int,
    remove: Sequence[int],
    windows: Sequence[int] = (),
    merged: Mapping[int, int] | None = None,
) -> EncoderFlow:
    """Stretches of every block, and the products of choosing, for frames of `units` units. merged: how many frames are
    left, by the block behind which some merge."""
    given, last, merged = frames, frames, merged or {}
    u = shape.unit_side**2
    stretches, products, taps, now, left = [], [], [], units, units
    for block in range(shape.blocks):
        windowed = windows and block not in shape.full_blocks
        each = _spread(now, windows) if windowed else (now,)
        stretches.append(tuple(n * u + shape.prefix for n in each) * frames)
        taps += [frames * now] if block in shape.taps else []
        gone = remove[block] if block < len(remove) else 0
        if gone:
            size = BlockSize(frames, left, shape.width, shape.heads, u, shape.prefix, first=left == units)
            products += INSIDE[config.method].operations(config, size)
        left, last = left - gone, merged.get(block, last)
        if block + 1 < shape.used_blocks:  # a cut behind the last used block shortens only what the LLM gets
            now, frames = left, last
    rows = (given if shape.pool == 1 else last) * units if shape.projects_all else last * left
    return EncoderFlow(
        given,
        given * units * u,
        tuple(stretches),
        tuple(taps),
        rows,
        last * left,
        tuple(products),
    )


def _fusion_products(shape: ModelShape, config: PruneConfig, frames: int, arrived: int) -> list[Product]:
    """Behind the projectors of several encoders: a rival's choice over the clip, then stage 2."""
    found: list[Product] = []
    if config.encoder.method in OVER_CLIP:
        size = ClipSize(frames, arrived // frames, shape.language.hidden, 0)
        kept = fused_count(arrived, replace(config, fusion=FusionPrune()), frames)
        found += OVER_CLIP[config.encoder.method].products(size, kept) if kept < arrived else []
        arrived = kept
    if (
        config.fusion.method != "none"
        and fused_count(arrived, replace(config, encoder=EncoderPrune()), frames) < arrived
    ):
        groups = frames if config.fusion.scope == "frame" else 1
        fusion = FUSION[config.fusion.method]
        found += fusion.across_operations(len(shape.encoders), groups, shape.language.hidden)
    return found


def _visual_by_layer(config: LLMPrune, fused: int, layers: int) -> tuple[int, ...]:
    if config.method == "none":
        return (fused,) * layers
    cuts = cut_layers(config, layers)
    ratios = cut_ratios(config, layers)
    found, now = [], fused
    for layer in range(layers):
        if layer in cuts:
            ratio = ratios[cuts.index(layer)]
            now = min(kept_at_cut(fused, ratio, config), now)
        found.append(now)
    return tuple(found)


def _cut_products(
    config: LLMPrune, shape: LanguageShape, fused: int, visual: Sequence[int], text: int, asking: int
) -> list[Product]:
    """Choosing at each cut. The layer before a cut computes on as many tokens as arrive at the cut, so
    `llm.attention` changes nothing here."""
    found: list[Product] = []
    cuts = cut_layers(config, shape.layers) if config.method != "none" else ()
    for cut in cuts:
        heads = (shape.heads, shape.kv_heads, shape.head_dim)
        arrived = visual[cut - 1] if cut else fused
        size = CutSize(
            arrived + text,
            asking,
            shape.hidden,
            *heads,
            visual=arrived,
            kept=visual[cut],
            first=cut == cuts[0],
        )
        found += LLM[config.method].operations(config, size)
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
