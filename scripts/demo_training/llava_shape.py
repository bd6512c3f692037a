"""The small LLaVA-OneVision.

Shapes: F frames, B clips, T time steps of a clip, g patches along a side, n tokens of a time step, D width of the
encoder, W width of the LLM.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from demo_training.encoders import normalize
from demo_training.shapes import (
    BLOCKS,
    HEADS,
    LOOK,
    SIDE,
    SPECIAL,
    WIDTH,
    StockShape,
    checkpoint,
    encoder_pass,
    stretched_places,
    template,
)
from videoprune.prune.counts import kept_units
from videoprune.prune.evoprune import bipartite_plan
from videoprune.prune.merge import apply_sized, compose, identity_plan

_KERNEL, _PLACES = "embeddings.patch_embedding.weight", "embeddings.position_embedding.weight"


class LlavaShape(StockShape):
    """LLaVA-OneVision: 8 x 8 patches, pooled to 4 x 4 a frame, and a newline token behind the clip.

    Its encoder starts from the first demo model's SigLIP, whose 7 x 7 patches of 8 pixels tell too few of the small
    shapes of the hard split (83 % by patches, 75 % by pooled tokens).
    """

    name = "llava-demo"
    grid, tokens_side, patch = 8, 4, SIDE // 8

    def _vision_config(self) -> SiglipVisionConfig:
        return SiglipVisionConfig(
            hidden_size=WIDTH,
            intermediate_size=3 * WIDTH,
            num_hidden_layers=BLOCKS,
            num_attention_heads=HEADS,
            image_size=self.side,
            patch_size=self.patch,
            vision_use_head=False,
        )

    def new_vision(self, out: Path) -> SiglipVisionModel:
        """The first demo model's SigLIP, its patches' kernels and its grid of positions stretched to the new sizes."""
        start = checkpoint(out, "siglip.pt")
        kernel, places = start[_KERNEL], start[_PLACES]
        size = (self.patch, self.patch)
        stretched = F.interpolate(kernel, size, mode="bilinear", antialias=True)
        start[_KERNEL] = stretched * (kernel.shape[-1] / self.patch) ** 2
        start[_PLACES] = stretched_places(places, self.grid)
        model = SiglipVisionModel(self._vision_config())
        model.load_state_dict(start)
        return model

    def patches(self, model: nn.Module, frames: Tensor) -> Tensor:
        """uint8 (F, S, S, 3) -> (F, g * g, D), row by row."""
        return model(normalize(frames.permute(0, 3, 1, 2), self.side)).last_hidden_state

    def build(self, out: Path, demo: Path, tokenizer: PreTrainedTokenizerFast) -> Any:
        torch.manual_seed(2)
        model = LlavaOnevisionForConditionalGeneration(
            LlavaOnevisionConfig(
                vision_config=self._vision_config().to_dict(),
                text_config=self._text(demo, tokenizer),
                video_token_id=tokenizer.convert_tokens_to_ids(SPECIAL["video"]),
                image_token_id=tokenizer.convert_tokens_to_ids(SPECIAL["image"]),
                image_grid_pinpoints=[[self.side, self.side]],
                vision_feature_select_strategy="full",
                tie_word_embeddings=True,
            )
        )
        return self._finish(model, out, demo, tokenizer)

    def trained(self, model: Any) -> list[Any]:
        return [model.model.multi_modal_projector, model.model.image_newline]

    def layout(self, tokenizer: PreTrainedTokenizerFast, duration: float, frames: int) -> Tensor:
        video = tokenizer.convert_tokens_to_ids(SPECIAL["video"])
        return torch.full((frames * self.tokens_side**2 + 1,), video)

    def droppable(self, layout: Tensor, model: Any) -> Tensor:
        return torch.arange(len(layout)) < len(layout) - 1  # all but the newline

    def fixed(self, model: Any, embeds: Tensor) -> Tensor:
        newline = model.model.image_newline.expand(embeds.shape[0], 1, -1)
        return torch.cat([embeds[:, :-1], newline], 1)

    def positions(self, model: Any, layout: Tensor) -> Tensor:
        return torch.arange(len(layout))[None]

    def encode(self, model: Any, frames: Tensor, clips: int) -> tuple[dict[str, Tensor], Tensor]:
        """Patches (F, g * g, D), merged ones with their survivor's value; the pooled tokens are chosen later."""
        pixels = normalize(frames.permute(0, 3, 1, 2), self.side)
        with encoder_pass(model):
            x = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1]
        return {"x": x}, torch.ones(len(x), self.tokens_side**2, dtype=torch.bool)

    def project(
        self, model: Any, x: dict[str, Tensor], kept: Tensor, keep: float
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        batch = len(kept)
        z = model.model.apply_pooling(model.model.multi_modal_projector(x["x"].flatten(0, 1)))
        z = _merge_alike(z, kept_units(z.shape[1], keep))
        there = ~z[..., 0].isnan()
        return z.nan_to_num().reshape(batch, -1, z.shape[2]), [], there.reshape(batch, -1).cpu()

    def processor(self, tokenizer: PreTrainedTokenizerFast) -> LlavaOnevisionProcessor:
        tokenizer.video_token, tokenizer.image_token = SPECIAL["video"], SPECIAL["image"]
        size = {"height": self.side, "width": self.side}
        return LlavaOnevisionProcessor(
            image_processor=LlavaOnevisionImageProcessor(
                size=size, image_grid_pinpoints=[[self.side, self.side]], **LOOK
            ),
            tokenizer=tokenizer,
            video_processor=LlavaOnevisionVideoProcessor(size=size, **LOOK),
            num_image_tokens=self.grid**2,
            vision_feature_select_strategy="full",
            chat_template=template(SPECIAL["video"]),
            image_token=SPECIAL["image"],
            video_token=SPECIAL["video"],
        )


def _merge_alike(x: Tensor, keep: int) -> Tensor:
    """Merge the tokens of each row (F, n, W) that are most alike until `keep` are left, NaN at the other places."""
    full, size = torch.full_like(x, float("nan")), x.new_ones(x.shape[:2])
    plan = identity_plan(x.shape[0], x.shape[1], x.device)
    while x.shape[1] > keep:
        step = bipartite_plan(x, min(x.shape[1] - keep, x.shape[1] // 2), lambda_div=0.0)
        (x,), size = apply_sized([x], step, size)
        plan = compose(plan, step)
    return full.scatter(1, plan.keep[..., None].expand_as(x), x)
