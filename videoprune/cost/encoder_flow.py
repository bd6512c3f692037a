"""How many tokens encoders compute on, block by block, under a pruning configuration, and what choosing takes there.

Shapes: F frames, P prefix tokens (CLS), n patches of a frame, u patches of a unit, H heads, d head width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from videoprune.config import EncoderPrune, PruneConfig
from videoprune.cost.shapes import (
    ConvShape,
    EncoderFlow,
    LanguageShape,
    ModelShape,
    VisionShape,
)
from videoprune.prune.budget import allocate
from videoprune.prune.counts import (
    comparing_block,
    kept_of_clip,
    kept_units,
    removals,
    retained_counts,
)
from videoprune.prune.kinds import BlockSize, Depth, Product, attention_products
from videoprune.prune.registry import BY_FRAME, FUSION, INSIDE, OVER_CLIP, ClipSize


def one_encoder(
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
    remove = _removals(vision, config.encoder, inside, frames, units, compared)
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
        choosing = [*choosing, (frames * units, 1, vision.width * side**2, 1)]
    flow = replace(flow, pruning=(*flow.pruning, *choosing))
    return [flow], frames * pooled + shape.extra, left + shape.extra


def _removals(
    vision: VisionShape, config: EncoderPrune, keep: float, frames: int, units: int, compared: int | None
) -> tuple[int, ...]:
    """Units of a frame that leave behind each block. compared: the block behind which frames are compared."""
    if compared is None:
        return removals(config, Depth(vision.used_blocks, units, kept_units(units, keep), vision.prefix))
    final = math.ceil(kept_of_clip(frames, units, keep) / frames)  # one budget: frames differ by a token
    depth = Depth(vision.used_blocks - compared - 1, units, final, vision.prefix)
    return (0,) * (compared + 1) + removals(config, depth)


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


def several_encoders(
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
