"""MultiEncoderVLM: several vision encoders, a projector each, one causal LM. Unpruned it is the EAGLE-type
baseline (EAGLE, arXiv 2408.15998, with projection before fusion, as METEOR has it).

Shapes: B clips, T frames, F all frames of a batch, N tokens, D encoder width, W width of the LLM, L text tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    CONFIG_MAPPING,
    AutoModel,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

from videoprune.clock import Stopwatch, now
from videoprune.config import EncoderPrune, PruneConfig
from videoprune.models.early import encode, retained_counts
from videoprune.models.encoders import VisionTower, tower
from videoprune.plug.llm_pass import LayerTrace, prune_layers
from videoprune.prune.fusion import fuse_plan
from videoprune.prune.merge import apply_plan, gather, merged_size
from videoprune.prune.over_clip import choose, is_clip_method, needs_heads
from videoprune.prune.rivals import CLIP_METHODS
from videoprune.types import KeepPlan, VideoFrames, VisualTokens

FREQUENCIES = 6  # of each coordinate of a token: time, row, column


class MultiEncoderConfig(PreTrainedConfig):
    """encoders: one mapping per encoder with `name`, `model_type` and that type's own fields, plus optional
    `mean` and `std` (three numbers each). text_config: any causal LM. num_frames: frames per clip in training.
    encoder_ranks: rank of each encoder's features at METEOR's three cuts, from `videoprune calibrate`.
    lambdas: calibrated lambda of adaptive LLM pruning, by `calibration_key`.
    """

    model_type = "videoprune_multi_encoder"

    def __init__(
        self,
        encoders: Sequence[dict[str, Any]] = (),
        text_config: dict[str, Any] | None = None,
        num_frames: int = 8,
        encoder_ranks: dict[str, list[float]] | None = None,
        lambdas: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        self.encoders = [dict(e) for e in encoders]
        self.text_config = dict(text_config or {})
        self.num_frames = num_frames
        self.encoder_ranks = encoder_ranks
        self.lambdas = dict(lambdas or {})
        super().__init__(**kwargs)


class Projector(nn.Module):
    """Tokens of one encoder into the LLM's width, with where and when they are: x (F, K, D) -> (F, K, W)."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.position = nn.Linear(3 * (2 * FREQUENCIES + 1), out)
        self.inner = nn.Linear(width, out)
        self.outer = nn.Linear(out, out)

    def forward(self, x: Tensor, where: Tensor) -> Tensor:
        return self.outer(F.gelu(self.inner(self.norm(x)))) + self.position(_fourier(where).to(x.dtype))


class MultiEncoderVLM(PreTrainedModel):
    """See the module's text. `encode` never sees the question, so its tokens serve any number of questions."""

    config_class = MultiEncoderConfig
    base_model_prefix = "multi_encoder"
    main_input_name = "pixel_values"
    _supports_sdpa = True
    _no_split_modules: list[str] = []  # noqa: RUF012

    def __init__(self, config: MultiEncoderConfig) -> None:
        super().__init__(config)
        if not config.encoders:
            raise ValueError("encoders=[]; allowed: at least one encoder")
        text = sub_config(config.text_config, "text_config")
        self.encoders = nn.ModuleDict()
        self.projectors = nn.ModuleDict()
        for entry in config.encoders:
            name, sub = entry["name"], encoder_config(entry)
            sub_model = AutoModel.from_config(sub)
            self.encoders[name] = sub_model
            self.projectors[name] = Projector(tower(name, sub_model).width, text.hidden_size)
        self.language_model = AutoModelForCausalLM.from_config(text)
        self.choosing = Stopwatch()  # time spent on choosing and merging in the last `encode`
        self.post_init()

    @property
    def towers(self) -> list[VisionTower]:
        return [tower(name, model) for name, model in self.encoders.items()]  # type: ignore[arg-type]

    @property
    def num_layers(self) -> int:
        return self.language_model.config.num_hidden_layers

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)

    def retained_count(self, num_frames: int, config: PruneConfig) -> dict[str, int]:
        """Tokens of one clip, before any pixel is seen: dense, after the encoders, after fusion (exact)."""
        counts = retained_counts(self.towers, config.encoder, self.config.encoder_ranks)
        arrived = num_frames * sum(c[-1] for c in counts.values())
        return {
            "dense": num_frames * sum(t.dense for t in self.towers),
            "encoders": arrived,
            "fused": _fused_count(arrived, config),  # a rival's own cut falls here too
        }

    def encoder_counts(self, config: PruneConfig) -> dict[str, int]:
        """Patch tokens of one frame that leave each encoder."""
        counts = retained_counts(self.towers, config.encoder, self.config.encoder_ranks)
        return {name: c[-1] for name, c in counts.items()}

    def encode_frames(
        self,
        pixels: Tensor,
        config: PruneConfig,
        generator: torch.Generator | None = None,
        plans: dict[str, KeepPlan] | None = None,
        clock: Stopwatch | None = None,
    ) -> list[tuple[VisionTower, Tensor, Tensor, Tensor]]:
        """Stage 1 on uint8 frames (F, H, W, 3): per encoder (tower, tokens (F, K, D), sizes (F, K), kept (F, K)).

        `plans` receives, by encoder, what became of each dense patch. clock: of choosing and merging.
        """
        counts = retained_counts(self.towers, config.encoder, self.config.encoder_ranks)
        out = []
        for one in self.towers:
            values = self.pixel_values(pixels, one)
            x, size, plan = encode(one, values, config.encoder, counts[one.name], generator, clock)
            out.append((one, x, size, plan.keep))
            if plans is not None:
                plans[one.name] = plan
        return out

    def project(self, one: VisionTower, x: Tensor, kept: Tensor, when: Tensor) -> Tensor:
        """Tokens (F, K, D) at dense positions kept (F, K), frames at relative times when (F,) -> (F, K, W)."""
        rows, columns = one.grid
        row = (torch.div(kept, columns, rounding_mode="floor") + 0.5) / rows
        column = (kept % columns + 0.5) / columns
        where = torch.stack([when[:, None].expand_as(row), row, column], -1)  # (F, K, 3)
        return self.projectors[one.name](x, where)

    @torch.no_grad()
    def encode(
        self,
        clips: Sequence[VideoFrames],
        config: PruneConfig,
        seconds: dict[str, float] | None = None,
        plans: dict[str, KeepPlan] | None = None,
    ) -> VisualTokens:
        """Stages 1 and 2 on clips with any number of frames each. `seconds` receives times by stage, `plans` what
        `encode_frames` says."""
        if not clips:
            raise ValueError("clips=[]; allowed: at least one")
        generator = torch.Generator().manual_seed(config.seed)
        self.choosing = Stopwatch()
        started = now(self.device)
        pixels = _stack_frames(clips, max(int(encoder_config(e).image_size) for e in self.config.encoders))
        encoded = self.encode_frames(pixels.to(self.device), config, generator, plans, self.choosing)
        encoded_at = now(self.device)
        tokens = self._fuse(clips, encoded, config, generator)
        if seconds is not None:
            seconds["encode"] = encoded_at - started
            seconds["fuse"] = now(self.device) - encoded_at
        return tokens

    def _fuse(
        self,
        clips: Sequence[VideoFrames],
        encoded: list[tuple[VisionTower, Tensor, Tensor, Tensor]],
        config: PruneConfig,
        generator: torch.Generator,
    ) -> VisualTokens:
        """Stage 2: project, lay the tokens out frame by frame, prune encoders against each other, pad rows."""
        lengths = [len(c) for c in clips]
        when = torch.cat([_relative_times(c.pts_seconds) for c in clips]).to(self.device)  # (F,)
        z = torch.cat([self.project(one, x, kept, when) for one, x, _, kept in encoded], 1)  # (F, K, W)
        size = torch.cat([s for _, _, s, _ in encoded], 1)
        place = torch.cat([_grid_places(kept, one.grid[1]) for one, _, _, kept in encoded], 1)  # (F, K, 2)
        owner = torch.cat([torch.full((k.shape[1],), i) for i, (_, _, _, k) in enumerate(encoded)]).to(
            z.device
        )
        rows = []
        for clip_z, clip_size, clip_place in zip(
            z.split(lengths), size.split(lengths), place.split(lengths), strict=True
        ):
            rows.append(_fuse_clip(clip_z, clip_size, clip_place, owner, config, generator))
        padded = [nn.utils.rnn.pad_sequence(list(part), batch_first=True) for part in zip(*rows, strict=True)]
        counts = torch.tensor([r[0].shape[0] for r in rows], device=z.device)
        mask = torch.arange(padded[0].shape[1], device=z.device) < counts[:, None]
        times = [torch.tensor(c.pts_seconds, dtype=torch.float64) for c in clips]
        pts = nn.utils.rnn.pad_sequence(times, batch_first=True, padding_value=math.nan)
        names, grids = tuple(t.name for t, *_ in encoded), tuple(t.grid for t, *_ in encoded)
        return VisualTokens(padded[0], padded[1], padded[2], padded[3], names, grids, pts, mask)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, tokens: VisualTokens, **kwargs: Any
    ) -> CausalLMOutputWithPast:
        """Logits over [visual tokens, text]: input_ids and attention_mask are (B, L), padded on the left."""
        embeds, mask, _ = self.assemble(tokens, input_ids, attention_mask)
        positions = (mask.long().cumsum(-1) - 1).clamp(min=0)
        return self.language_model(
            inputs_embeds=embeds, attention_mask=mask, position_ids=positions, **kwargs
        )

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        tokens: VisualTokens,
        *,
        prune: PruneConfig | None = None,
        max_new_tokens: int = 16,
        last_places: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, LayerTrace]:
        """Stage 3 and decoding: new ids (B, n), greedy unless `kwargs` say otherwise, and the trace by layer.

        last_places: the trace also says which tokens reach the last layer.
        A calibrated lambda was found for clips of `config.num_frames`; for other counts of tokens it is scaled.
        """
        embeds, mask, visual = self.assemble(tokens, input_ids, attention_mask)
        prune = prune or PruneConfig()
        scale = None
        if prune.llm.method == "adaptive" and prune.llm.lambda_ is None:
            scale = visual.sum(1) / self.retained_count(self.config.num_frames, prune)["fused"]
        llm = self.resolve(prune).llm
        trace = LayerTrace(last_places=[] if last_places else None)
        with prune_layers(self.language_model, llm, visual, mask, scale=scale, seed=prune.seed, trace=trace):
            ids = self.language_model.generate(
                inputs_embeds=embeds,
                attention_mask=mask,
                max_new_tokens=max_new_tokens,
                do_sample=kwargs.pop("do_sample", False),
                **kwargs,
            )
        return ids, trace

    def resolve(self, prune: PruneConfig) -> PruneConfig:
        """Fill in the calibrated lambda. Raises ValueError that names the calibration where there is none, and for
        what only a model of one encoder can do."""
        _check_encoder(prune.encoder)
        if prune.llm.method != "adaptive" or prune.llm.lambda_ is not None:
            return prune
        key = calibration_key(prune)
        if key not in self.config.lambdas:
            known = ", ".join(sorted(self.config.lambdas)) or "none"
            raise ValueError(
                f"llm.lambda_=null: this model is not calibrated for {key!r} (calibrated: {known}); "
                "give llm.lambda_ or run `videoprune calibrate`"
            )
        return prune.replace(**{"llm.lambda_": self.config.lambdas[key]})

    def assemble(
        self, tokens: VisualTokens, input_ids: Tensor, attention_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """[padding, visual, text] per row: embeddings (B, S, W), attention mask and visual mask, bool (B, S)."""
        text = self.language_model.get_input_embeddings()(input_ids)  # (B, L, W)
        x = tokens.x.expand(text.shape[0], -1, -1) if tokens.x.shape[0] == 1 else tokens.x
        seen = tokens.mask.expand(text.shape[0], -1)
        embeds = torch.cat([x.to(text.dtype), text], 1)
        mask = torch.cat([seen, attention_mask.bool()], 1)
        visual = torch.cat([seen, torch.zeros_like(attention_mask, dtype=torch.bool)], 1)
        order = mask.to(torch.int8).argsort(dim=1, stable=True)  # padding of either part moves to the left
        keep = order[:, mask.shape[1] - int(mask.sum(1).max()) :]
        index = keep[..., None].expand(-1, -1, embeds.shape[2])
        return embeds.gather(1, index), mask.gather(1, keep), visual.gather(1, keep)

    def pixel_values(self, pixels: Tensor, one: VisionTower) -> Tensor:
        """uint8 (F, H, W, 3) -> normalised (F, 3, S, S) at the encoder's own size."""
        entry = next(e for e in self.config.encoders if e["name"] == one.name)
        size = one.model.config.image_size
        x = pixels.permute(0, 3, 1, 2).to(self.dtype) / 255
        mean, std = (x.new_tensor(entry.get(k, (0.5,) * 3))[:, None, None] for k in ("mean", "std"))
        x = (x - mean) / std
        return (
            x
            if x.shape[-2:] == (size, size)
            else F.interpolate(x, (size, size), mode="bilinear", antialias=True)
        )


def calibration_key(prune: PruneConfig) -> str:
    """Names what a lambda was calibrated for: what arrives, the wanted share, the cuts, how attention is read."""
    encoder, fusion, llm = prune.encoder, prune.fusion, prune.llm
    before = [
        f"{part.method}:{part.keep:g}"
        for part in (encoder, fusion)
        if part.method != "none" and part.keep < 1
    ]
    heads = f"{llm.heads}{llm.top_heads if llm.heads == 'top' else ''}"
    cuts = "-".join(f"{f:g}" for f in llm.layers)
    whose = "" if llm.attention == "next" else f" attention:{llm.attention}"
    return " ".join([*before, f"llm:{llm.keep:g} layers:{cuts} heads:{heads} queries:{llm.queries}{whose}"])


def encoder_config(entry: dict[str, Any]) -> PreTrainedConfig:
    own = {k: v for k, v in entry.items() if k not in ("name", "mean", "std")}
    return sub_config(own, f"encoders: {entry.get('name')!r}")


def sub_config(data: dict[str, Any], name: str) -> PreTrainedConfig:
    kind = str(data.get("model_type"))
    if kind not in CONFIG_MAPPING:
        raise ValueError(f"{name}: model_type={kind!r}; allowed: a model type of transformers")
    return CONFIG_MAPPING[kind](**{k: v for k, v in data.items() if k != "model_type"})


def _check_encoder(config: EncoderPrune) -> None:
    if config.temporal or config.frames != "equal":
        raise ValueError(
            f"encoder.temporal={config.temporal}, encoder.frames={config.frames!r}; allowed with several encoders: "
            "0 and 'equal' (stock models have them)"
        )
    if is_clip_method(config.method) and needs_heads(config.method):
        allowed = ", ".join(n for n in CLIP_METHODS if not CLIP_METHODS[n].needs)
        raise ValueError(
            f"encoder.method={config.method!r} needs the attention of one encoder; allowed with several: evoprune, "
            f"meteor, {allowed}"
        )


def _fused_count(arrived: int, config: PruneConfig) -> int:
    if is_clip_method(config.encoder.method):
        arrived = max(1, round(config.encoder.keep * arrived))
    return arrived if config.fusion.method == "none" else max(1, round(config.fusion.keep * arrived))


def _fuse_clip(
    z: Tensor, size: Tensor, place: Tensor, owner: Tensor, config: PruneConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One clip's tokens (T, K, W) -> the fused ones: x (n, W), size (n,), origin (n, 3), encoder (n,)."""
    frames, kept = z.shape[:2]
    frame = torch.arange(frames, device=z.device).repeat_interleave(kept)  # (T*K,)
    encoder = owner.repeat(frames)
    parts = (
        z.flatten(0, 1),
        size.flatten(),
        torch.cat([frame[:, None], place.flatten(0, 1)], 1),
        encoder,
    )
    fusion = config.fusion
    if is_clip_method(config.encoder.method):
        count = max(1, round(config.encoder.keep * frames * kept))
        plan = choose(config.encoder.method, z, [count], [frames], generator=generator)
        x = apply_plan(parts[0][None], plan, parts[1][None])
        total = merged_size(parts[1][None], plan)
        origin, encoder = gather(parts[2][None], plan)[0], encoder[plan.keep[0]]
        parts, frame = (x[0], total[0], origin, encoder), frame[plan.keep[0]]
    arrived = len(parts[0])
    keep = arrived if fusion.method == "none" else max(1, round(fusion.keep * arrived))
    if fusion.method == "none" or keep == arrived:
        return parts
    plan = fuse_plan(
        parts[0][None],
        encoder,
        keep,
        method=fusion.method,
        redundancy=fusion.redundancy,
        group=frame if fusion.scope == "frame" else None,
        generator=generator,
    )
    x, s, o, e = (gather(p[None], plan)[0] for p in parts)
    return x, s, o, e


def _stack_frames(clips: Sequence[VideoFrames], size: int) -> Tensor:
    """All frames of all clips, uint8 (F, H, W, 3); clips of other shapes are resized to size x size."""
    if len({tuple(c.pixels.shape[1:]) for c in clips}) == 1:
        return torch.cat([c.pixels for c in clips])
    return torch.cat([_resize(c.pixels, size) for c in clips])


def _resize(pixels: Tensor, size: int) -> Tensor:
    x = pixels.permute(0, 3, 1, 2).float()
    x = F.interpolate(x, (size, size), mode="bilinear", antialias=True)
    return x.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def _relative_times(pts: Sequence[float]) -> Tensor:
    """Times as shares of the clip's sampled span, (T,): 0 is the first frame, 1 the last."""
    t = torch.tensor(pts, dtype=torch.float64)
    span = float(t[-1] - t[0])
    return ((t - t[0]) / span if span > 0 else torch.zeros_like(t)).float()


def _grid_places(kept: Tensor, columns: int) -> Tensor:
    """Dense positions (F, K) -> row and column (F, K, 2)."""
    return torch.stack([torch.div(kept, columns, rounding_mode="floor"), kept % columns], -1)


def _fourier(where: Tensor) -> Tensor:
    """Coordinates in [0, 1], (..., 3) -> (..., 3 * (2 * frequencies + 1))."""
    waves = torch.pi * 2.0 ** torch.arange(FREQUENCIES, device=where.device)
    angles = where[..., None] * waves  # (..., 3, frequencies)
    return torch.cat([where[..., None], angles.sin(), angles.cos()], -1).flatten(-2)
