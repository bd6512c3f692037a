"""How many tokens go where under a pruning configuration, known before any pixel: `token_flow`.

The counts are those of `prune.counts`; the products are what each method of `prune.registry` says that choosing takes.
What the pixels decide is taken on average: a merged frame's units are spread over its windows evenly, and adaptive
pruning in the LLM keeps `llm.keep` on a geometric row. Counts that were measured can be given instead.
Encoders: `encoder_flow`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from videoprune.config import EncoderPrune, FusionPrune, LLMPrune, PruneConfig
from videoprune.cost.encoder_flow import one_encoder, several_encoders
from videoprune.cost.shapes import (
    LanguageShape,
    ModelShape,
    TokenFlow,
)
from videoprune.prune.counts import (
    cut_layers,
    cut_ratios,
    fused_count,
    kept_at_cut,
)
from videoprune.prune.kinds import Product
from videoprune.prune.llm_kinds import CutSize
from videoprune.prune.registry import FUSION, LLM, OVER_CLIP, ClipSize


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
        encoders, dense, arrived = several_encoders(shape, config, frames)
    else:
        encoders, dense, arrived = one_encoder(shape, config, frames, size, frames_left)
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
