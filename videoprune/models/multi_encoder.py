"""MultiEncoderVLM: several vision encoders, a projector each, one causal LM. Unpruned it is the EAGLE-type
baseline (EAGLE, arXiv 2408.15998, with projection before fusion, as METEOR has it).

Its encoders and its LLM are pruned by the hooks that stock models get: within a `Pass`, and not outside one.

Shapes: B clips, T frames, F frames of all clips, N tokens, D encoder width, W width of the LLM, L text tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from videoprune.clock import Stopwatch
from videoprune.config import PruneConfig
from videoprune.models.encoded_frames import (
    EncodedFrames,
    fuse_clips_of,
    relative_times,
    stack_frames,
)
from videoprune.models.multi_encoder_config import MultiEncoderConfig, encoder_config, sub_config
from videoprune.models.projector import Projector
from videoprune.plug.current_pass import Pass, passing
from videoprune.plug.encoder_hooks import EncoderHooks
from videoprune.plug.families.tower import Tower
from videoprune.plug.joints import text_joints
from videoprune.plug.llm_door import LlmDoor
from videoprune.plug.packing import plan_by_frame
from videoprune.plug.prefix import Prefix
from videoprune.plug.settings import Settings, calibration_key
from videoprune.prune.counts import fused_count, lambda_is_open, retained_counts
from videoprune.prune.merge import apply_sized, identity_plan
from videoprune.prune.registry import BY_FRAME, INSIDE, LLM, OVER_CLIP, names
from videoprune.types import VideoFrames, VisualTokens


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
        self.towers: list[Tower] = []
        for entry in config.encoders:
            name, sub = entry["name"], encoder_config(entry)
            self.encoders[name] = AutoModel.from_config(sub)
            self.towers.append(Tower(name, self.encoders[name]))
            self.projectors[name] = Projector(self.towers[-1].width, text.hidden_size)
        self.language_model = AutoModelForCausalLM.from_config(text)
        decoder: nn.Module = self.language_model.base_model
        self.hooks = [EncoderHooks(self, tower) for tower in self.towers]
        self.door = LlmDoor(self, decoder, text_joints(decoder))
        self.post_init()

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
        arrived = num_frames * sum(self.encoder_counts(config).values())
        return {
            "dense": num_frames * sum(t.dense for t in self.towers),
            "encoders": arrived,
            "fused": fused_count(arrived, config, num_frames),  # a rival's own cut falls here too
        }

    def encoder_counts(self, config: PruneConfig) -> dict[str, int]:
        """Patch tokens of one frame that leave each encoder."""
        counts = retained_counts(self.towers, config.encoder, self.config.encoder_ranks)
        return {name: c[-1] for name, c in counts.items()}

    def settings(self, prune: PruneConfig) -> Settings:
        """`prune` for this model, with the calibrated lambda. A lambda was found for clips of `config.num_frames`; for
        other counts of tokens it is scaled.

        Raises ValueError that names the calibration where there is none, and for what only a model of one encoder can
        do.
        """
        self._check(prune)
        if not lambda_is_open(prune.llm):
            return Settings(prune)
        key = calibration_key(prune)
        if key not in self.config.lambdas:
            known = ", ".join(sorted(self.config.lambdas)) or "none"
            raise ValueError(
                f"llm.lambda_=null: this model is not calibrated for {key!r} (calibrated: {known}); "
                "give llm.lambda_ or run `videoprune calibrate`"
            )
        found = prune.replace(**{"llm.lambda_": self.config.lambdas[key]})
        return Settings(found, self.retained_count(self.config.num_frames, prune)["fused"])

    def _check(self, prune: PruneConfig) -> None:
        config = prune.encoder
        if config.temporal or config.frames != "equal":
            raise ValueError(
                f"encoder.temporal={config.temporal}, encoder.frames={config.frames!r}; allowed with several "
                "encoders: 0 and 'equal' (stock models have them)"
            )
        if config.method in OVER_CLIP and OVER_CLIP[config.method].needs:
            allowed = [n for n in names("encoder") if n not in OVER_CLIP or not OVER_CLIP[n].needs]
            raise ValueError(
                f"encoder.method={config.method!r} needs the attention of one encoder; allowed with several: "
                f"{', '.join(allowed)}"
            )
        if prune.llm.method != "none" and LLM[prune.llm.method].needs_frames:
            raise ValueError(
                f"llm.method={prune.llm.method!r} compares the frames of one encoder; allowed with several: "
                f"{', '.join(n for n in names('llm') if not LLM[n].needs_frames)}"
            )
        retained_counts(self.towers, config, self.config.encoder_ranks)  # ranks may be missing

    @torch.no_grad()
    def encode_frames(
        self, pixels: Tensor, settings: Settings, generator: torch.Generator, clock: Stopwatch
    ) -> list[EncodedFrames]:
        """Stage 1 on uint8 frames (F, H, W, 3). clock: of choosing and merging."""
        config = settings.config.encoder
        counts = retained_counts(self.towers, config, self.config.encoder_ranks)
        inside = {
            t.name: counts[t.name]
            for t in self.towers
            if config.method in INSIDE and t.blocks and counts[t.name][-1] < t.dense
        }
        out = []
        with passing(Pass(self, settings, cuts=inside, generator=generator)) as now:
            for tower in self.towers:
                x = tower.features(self.pixel_values(pixels, tower))
                run = now.encoders.get(tower.name)
                if run is not None:
                    assert run.plan is not None
                    assert run.size is not None
                    plan = plan_by_frame(run.plan, len(x))
                    size = run.size.unflatten(0, (len(x), -1))[:, tower.prefix :].to(x)
                    clock.add(run.clock)
                elif counts[tower.name][-1] == tower.dense:
                    size, plan = x.new_ones(x.shape[:2]), identity_plan(len(x), tower.dense, x.device)
                else:
                    with clock.on(x.device):
                        x, size, plan = _reduced(x, tower, settings, counts[tower.name][-1], generator)
                out.append(EncodedFrames(tower.name, tower.grid, x, size, plan))
        return out

    @torch.no_grad()
    def fuse(
        self,
        clips: Sequence[VideoFrames],
        encoded: Sequence[EncodedFrames],
        settings: Settings,
        generator: torch.Generator,
    ) -> VisualTokens:
        """Stage 2: project the tokens of all frames of all clips, and prune encoders against each other."""
        when = torch.cat([relative_times(c.pts_seconds) for c in clips]).to(self.device)  # (F,)
        projected = [self.projectors[e.name](e.x, e.coordinates(when)) for e in encoded]  # (F, K, W)
        return fuse_clips_of(clips, encoded, projected, settings.config, generator)

    def encode(self, clips: Sequence[VideoFrames], prune: PruneConfig) -> VisualTokens:
        """Stages 1 and 2 on clips with any number of frames each."""
        settings = self.settings(prune)
        generator = torch.Generator().manual_seed(prune.seed)
        encoded = self.encode_frames(self.frames(clips), settings, generator, Stopwatch())
        return self.fuse(clips, encoded, settings, generator)

    def frames(self, clips: Sequence[VideoFrames]) -> Tensor:
        """All frames of the clips on the model's device, uint8 (F, H, W, 3)."""
        if not clips:
            raise ValueError("clips=[]; allowed: at least one")
        return stack_frames(clips, self.config.frame_side).to(self.device)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, tokens: VisualTokens, **kwargs: Any
    ) -> CausalLMOutputWithPast:
        """Logits over [visual tokens, text]: input_ids and attention_mask are (B, L), padded on the left."""
        embeds, mask, visual = self.assemble(tokens, input_ids, attention_mask)
        positions = self.positions(mask, visual)
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
        settings: Settings | None = None,
        prefix: Prefix | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Stage 3 and decoding: new ids (B, n), greedy unless `kwargs` say otherwise. settings: None prunes nothing.
        prefix: `beginnings` of the clips, a row for each prompt."""
        embeds, mask, visual = self.assemble(tokens, input_ids, attention_mask)
        settings = settings or Settings(PruneConfig())
        call = Pass(self, settings, visual=visual, prompt_tokens=embeds.shape[1], marked=0, prefix=prefix)
        with passing(call):
            return self.language_model.generate(
                inputs_embeds=embeds,
                attention_mask=mask,
                position_ids=self.positions(mask, visual),
                do_sample=kwargs.pop("do_sample", False),
                **kwargs,
            )

    @torch.no_grad()
    def beginnings(self, tokens: VisualTokens, settings: Settings) -> Prefix:
        """What all questions about each clip share."""
        no_text = torch.zeros(len(tokens.x), 0, dtype=torch.int64, device=tokens.x.device)
        embeds, mask, visual = self.assemble(tokens, no_text, no_text)
        return self.door.begin(
            Pass(self, settings, visual=visual, marked=0),
            self.language_model.base_model,
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=self.positions(mask, visual),
        )

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

    def positions(self, mask: Tensor, visual: Tensor) -> Tensor:
        """Position of each token, of masks (B, S) as `assemble` has them: 0 at the first of a row; the next is
        `visual_step` further if visual, else 1."""
        step: float = self.config.visual_step
        if step == 1:
            return (mask.long().cumsum(-1) - 1).clamp(min=0)
        steps = torch.where(visual, step, 1.0) * mask
        first = steps.gather(1, mask.to(torch.int8).argmax(1, keepdim=True))
        return (steps.cumsum(-1) - first).clamp(min=0)

    def pixel_values(self, pixels: Tensor, one: Tower) -> Tensor:
        """uint8 (F, H, W, 3) -> normalised (F, 3, S, S) at the encoder's own size."""
        entry = next(e for e in self.config.encoders if e["name"] == one.name)
        size: int = one.vision.config.image_size  # type: ignore[union-attr, assignment]
        x = pixels.permute(0, 3, 1, 2).to(self.dtype) / 255
        mean, std = (x.new_tensor(entry.get(k, (0.5,) * 3))[:, None, None] for k in ("mean", "std"))
        x = (x - mean) / std
        if x.shape[-2:] == (size, size):
            return x
        return F.interpolate(x, (size, size), mode="bilinear", antialias=True)


def _reduced(
    x: Tensor, tower: Tower, settings: Settings, final: int, generator: torch.Generator
) -> tuple[Any, ...]:
    """What leaves an encoder (F, N, D), reduced at its end: controls, and encoders that cannot lose tokens inside."""
    frames, dense = x.shape[:2]
    config, size = settings.config.encoder, x.new_ones(x.shape[:2])
    if config.method in INSIDE:
        return INSIDE[config.method].at_end(x, final, config)
    plan = BY_FRAME[config.method].plan(
        frames, dense, final, grid=tower.grid, generator=generator, device=x.device
    )
    (x,), size = apply_sized([x], plan, size)
    return x, size, plan
