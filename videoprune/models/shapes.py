"""Read a `ModelShape` from a model's configuration: attribute names only, no weights.

Shapes: D width of the encoder, W width of the LLM, u patches of a unit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from videoprune.cost.shapes import ConvShape, LanguageShape, ModelShape, VisionShape
from videoprune.models.multi_encoder_config import FREQUENCIES, encoder_config, sub_config
from videoprune.plug.families.tower import CONVOLUTIONAL, PARTS


def model_shape(config: Any) -> ModelShape:
    """The shape of a stock model of one of the families, or of a MultiEncoderVLM.

    config: `model.config`. Raises ValueError for other models.
    """
    kind = config.model_type
    if kind not in _READERS:
        raise ValueError(f"config: model_type={kind!r}; allowed: {', '.join(sorted(_READERS))}")
    return _READERS[kind](config)


def language_shape(config: Any) -> LanguageShape:
    """The LLM. config: of a decoder with grouped heads and a gated MLP, or of the whole model."""
    text = config.get_text_config()
    heads = text.num_attention_heads
    return LanguageShape(
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        heads=heads,
        kv_heads=getattr(text, "num_key_value_heads", None) or heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // heads,
        mlp=text.intermediate_size,
        vocab=text.vocab_size,
    )


def _one_encoder(config: Any, vision: VisionShape, extra: int = 0) -> ModelShape:
    return ModelShape(config.model_type, (vision,), language_shape(config), extra)


def _llava_onevision(config: Any) -> ModelShape:
    out = config.text_config.hidden_size
    vision = _vit(
        config.vision_config,
        used=config.vision_feature_layer,
        projector=((config.vision_config.hidden_size, out), (out, out)),
        projects_all=True,
        pool=2,
    )
    return _one_encoder(config, vision, extra=1)


def _llava_next_video(config: Any) -> ModelShape:
    out = config.text_config.hidden_size
    vision = _vit(
        config.vision_config,
        used=config.vision_feature_layer,
        prefix=1,
        unit_side=config.spatial_pool_stride,
        projector=((config.vision_config.hidden_size, out), (out, out)),
        projects_all=True,
    )
    return _one_encoder(config, vision)


def _internvl(config: Any) -> ModelShape:
    side, out = round(1 / config.downsample_ratio), config.text_config.hidden_size
    vision = _vit(
        config.vision_config,
        used=config.vision_feature_layer,
        prefix=1,
        unit_side=side,
        projector=((config.vision_config.hidden_size * side**2, out), (out, out)),
        projects_all=True,
    )
    return _one_encoder(config, vision)


def _smolvlm(config: Any) -> ModelShape:
    side = config.scale_factor
    vision = _vit(
        config.vision_config,
        unit_side=side,
        projector=((config.vision_config.hidden_size * side**2, config.text_config.hidden_size),),
        projects_all=True,
    )
    return _one_encoder(config, vision)


def _video_llama_3(config: Any) -> ModelShape:
    width, out = config.vision_config.hidden_size, config.text_config.hidden_size
    vision = _vit(
        config.vision_config,
        any_size=True,
        unit_side=2,  # the processor's merge_size for videos
        projector=((width, out), (out, out)),
        projects_all=True,
    )
    return replace(_one_encoder(config, vision), head_on_all=True)


def _qwen_vl(config: Any) -> ModelShape:
    vision = config.vision_config
    side = vision.spatial_merge_size
    joined = vision.hidden_size * side**2
    windowed = getattr(vision, "fullatt_block_indexes", None) is not None
    shape = VisionShape(
        name="vision",
        blocks=vision.depth,
        used_blocks=vision.depth,
        width=vision.hidden_size,
        heads=vision.num_heads,
        mlp=vision.intermediate_size,
        mlp_matrices=3 if config.model_type == "qwen2_5_vl" else 2,
        patch_inputs=vision.in_channels * vision.temporal_patch_size * vision.patch_size**2,
        patch_size=vision.patch_size,
        grid=None,
        temporal=vision.temporal_patch_size,
        unit_side=side,
        window_units=vision.window_size // side // vision.patch_size if windowed else 0,
        full_blocks=tuple(vision.fullatt_block_indexes) if windowed else (),
        taps=tuple(getattr(vision, "deepstack_visual_indexes", ())),
        projector=((joined, joined), (joined, vision.out_hidden_size)),
    )
    return _one_encoder(config, shape)


def _multi_encoder(config: Any) -> ModelShape:
    language = language_shape(sub_config(config.text_config, "text_config"))
    encoders = tuple(_one_of_many(e["name"], encoder_config(e), language.hidden) for e in config.encoders)
    return ModelShape(
        config.model_type,
        encoders,
        language,
        fuses=True,
        ranks=config.encoder_ranks,
    )


def _one_of_many(name: str, config: Any, out: int) -> VisionShape | ConvShape:
    """An encoder of a MultiEncoderVLM with its projector, which takes places and times too."""
    where = (3 * (2 * FREQUENCIES + 1), out)
    if config.model_type in CONVOLUTIONAL:
        return ConvShape(
            name,
            tuple(config.hidden_sizes),
            tuple(config.depths),
            config.patch_size,
            config.image_size,
            projector=((config.hidden_sizes[-1], out), (out, out), where),
        )
    projector = ((config.hidden_size, out), (out, out), where)
    return _vit(config, name=name, prefix=PARTS[config.model_type].prefix, projector=projector)


def _vit(
    config: Any, *, name: str = "vision", used: int = -1, any_size: bool = False, **more: Any
) -> VisionShape:
    """The common names of ViTs. used: index of the hidden states that the LLM's features come from."""
    patch, blocks = _side(config.patch_size), config.num_hidden_layers
    grid = None
    if not any_size:
        height, width = _pair(config.image_size)
        grid = (height // patch, width // patch)
    mlp, matrices = _mlp(config)
    return VisionShape(
        name=name,
        blocks=blocks,
        used_blocks=blocks + 1 + used if used < 0 else used,
        width=config.hidden_size,
        heads=config.num_attention_heads,
        mlp=mlp,
        mlp_matrices=matrices,
        patch_inputs=config.num_channels * patch**2,
        patch_size=patch,
        grid=grid,
        **more,
    )


def _mlp(config: Any) -> tuple[int, int]:
    """Inner width and number of matrices; DINOv2 gives a ratio."""
    if hasattr(config, "intermediate_size"):
        return config.intermediate_size, 2
    inner = int(config.hidden_size * config.mlp_ratio)
    return ((inner * 2 // 3 + 7) // 8 * 8, 3) if config.use_swiglu_ffn else (inner, 2)


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _side(size: Any) -> int:
    return _pair(size)[0]


_READERS: dict[str, Callable[[Any], ModelShape]] = {
    "llava_onevision": _llava_onevision,
    "llava_next_video": _llava_next_video,
    "qwen2_5_vl": _qwen_vl,
    "qwen3_vl": _qwen_vl,
    "internvl": _internvl,
    "smolvlm": _smolvlm,
    "video_llama_3": _video_llama_3,
    "videoprune_multi_encoder": _multi_encoder,
}
