"""The small Qwen3-VL.

Shapes: F frames, B clips, T time steps of a clip, g patches along a side, n tokens of a time step, D width of the
encoder, W width of the LLM.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel

from demo_training.encoders import normalize
from demo_training.shapes import (
    BLOCKS,
    GRID,
    HEADS,
    LOOK,
    PATCH,
    SIDE,
    SPECIAL,
    WIDTH,
    StockShape,
    encoder_pass,
    stretched_places,
    template,
)
from videoprune.eval.benchmarks.moving_shapes.hard_scene import SLOTS


def _clip_weights(out: Path) -> dict[str, Tensor]:
    return torch.load(out / "clip.pt", map_location="cpu", weights_only=True)["model"]


class QwenShape(StockShape):
    """Qwen3-VL: pairs of frames, 12 x 12 patches joined to 6 x 6, one DeepStack tap, a timestamp before each pair."""

    name = "qwen-demo"
    frames_per_step = 2
    llm_layers = 6  # its mergers are large, and 8 MB the limit

    def _config(self, text: dict[str, Any], ids: dict[str, int]) -> Qwen3VLConfig:
        vision = {
            "depth": BLOCKS,
            "hidden_size": WIDTH,
            "intermediate_size": 3 * WIDTH,
            "num_heads": HEADS,
            "patch_size": PATCH,
            "temporal_patch_size": 2,
            "out_hidden_size": text.get("hidden_size", WIDTH),
            "deepstack_visual_indexes": [4],
            "num_position_embeddings": GRID**2,
            "hidden_act": "quick_gelu",
        }
        own = {k: v for k, v in text.items() if k != "model_type"}
        rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 3, 3]}
        return Qwen3VLConfig(
            vision_config=vision,
            text_config={**own, "rope_parameters": rope},
            video_token_id=ids.get("video", 1),
            image_token_id=ids.get("image", 2),
            vision_start_token_id=ids.get("start", 3),
            vision_end_token_id=ids.get("end", 4),
            tie_word_embeddings=True,
        )

    def new_vision(self, out: Path) -> Qwen3VLVisionModel:
        clip = _clip_weights(out)
        start = {}
        for i in range(BLOCKS):
            old, new = f"encoder.layers.{i}.", f"blocks.{i}."
            for part in ("weight", "bias"):
                heads = [clip[f"{old}self_attn.{p}_proj.{part}"] for p in "qkv"]
                start[f"{new}attn.qkv.{part}"] = torch.cat(heads)
                start[f"{new}attn.proj.{part}"] = clip[f"{old}self_attn.out_proj.{part}"]
                for j in (1, 2):
                    start[f"{new}norm{j}.{part}"] = clip[f"{old}layer_norm{j}.{part}"]
                    start[f"{new}mlp.linear_fc{j}.{part}"] = clip[f"{old}mlp.fc{j}.{part}"]
        kernel = clip["embeddings.patch_embedding.weight"]
        start["patch_embed.proj.weight"] = torch.stack([kernel / 2, kernel / 2], 2)
        start["patch_embed.proj.bias"] = torch.zeros(WIDTH)
        start["pos_embed.weight"] = stretched_places(clip["embeddings.position_embedding.weight"][1:], GRID)
        model = Qwen3VLVisionModel(self._config({"hidden_size": 160}, {}).vision_config)
        model.load_state_dict(start, strict=False)
        return model

    def vision(self, model: Any) -> nn.Module:
        return model.model.visual

    def _packed(self, frames: Tensor, clips: int = 1) -> tuple[Tensor, Tensor]:
        """uint8 (F, S, S, 3) -> patches as the processor packs them (N, 3*2*8*8), and the grid of each clip."""
        x = normalize(frames.permute(0, 3, 1, 2), SIDE)  # (F, 3, S, S)
        steps, half = len(x) // 2, GRID // 2
        x = x.view(steps, 2, 3, half, 2, PATCH, half, 2, PATCH).permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
        return x.reshape(-1, 3 * 2 * PATCH * PATCH), torch.tensor([[steps // clips, GRID, GRID]] * clips)

    def patches(self, model: nn.Module, frames: Tensor) -> Tensor:
        """uint8 (F, S, S, 3) -> (F / 2, g * g, D), row by row."""
        packed, grid = self._packed(frames)
        x = model(packed, grid_thw=grid.to(packed.device)).last_hidden_state
        half = GRID // 2
        return x.view(-1, half, half, 2, 2, WIDTH).transpose(2, 3).reshape(-1, GRID * GRID, WIDTH)

    def build(self, out: Path, demo: Path, tokenizer: PreTrainedTokenizerFast) -> Any:
        torch.manual_seed(2)
        ids = {k: tokenizer.convert_tokens_to_ids(v) for k, v in SPECIAL.items()}
        return self._finish(
            Qwen3VLForConditionalGeneration(self._config(self._text(demo, tokenizer), ids)),
            out,
            demo,
            tokenizer,
        )

    def trained(self, model: Any) -> list[Any]:
        visual = model.model.visual
        for part in (visual.merger, visual.deepstack_merger_list):
            part.requires_grad_(True)
        return [visual.merger, visual.deepstack_merger_list]

    def layout(self, tokenizer: PreTrainedTokenizerFast, duration: float, frames: int) -> Tensor:
        """The prompt before the question, with the times of frames spread over `duration` seconds."""
        parts = []
        for step in range(frames // 2):
            pads = SPECIAL["video"] * self.tokens_side**2
            seconds = (2 * step + 1) / frames * duration
            parts.append(f"<{seconds:.1f} seconds>{SPECIAL['start']}{pads}{SPECIAL['end']}")
        return torch.tensor(tokenizer.encode("".join(parts)))

    def droppable(self, layout: Tensor, model: Any) -> Tensor:
        return layout == model.config.video_token_id

    def positions(self, model: Any, layout: Tensor) -> Tensor:
        ids = layout[None]
        types = (ids == model.config.video_token_id).int() * 2
        steps = int((layout == model.config.video_token_id).sum()) // self.tokens_side**2
        grid = torch.tensor([[steps, GRID, GRID]])
        found, _ = model.model.get_rope_index(ids, mm_token_type_ids=types, video_grid_thw=grid)
        return found[:, 0]

    def encode(self, model: Any, frames: Tensor, clips: int) -> tuple[dict[str, Tensor], Tensor]:
        """What the merger and the tap read, unit by unit (T, n, 4 * D), zero where a unit is gone."""
        seen: dict[str, Tensor] = {}
        visual = model.model.visual
        taken = {"x": visual.merger, "tap": visual.deepstack_merger_list[0]}
        packed, grid = self._packed(frames, clips)
        n = self.tokens_side**2
        kept = torch.ones(len(frames) // 2 * n, dtype=torch.bool)
        with encoder_pass(model) as run:
            hooks = [m.register_forward_pre_hook(_note(seen, k, run)) for k, m in taken.items()]
            visual(packed, grid_thw=grid)
            for hook in hooks:
                hook.remove()
            current = run()
            if current is not None:
                kept = current.left(packed.device)
        return {k: v.view(-1, n, 4 * WIDTH) for k, v in seen.items()}, kept.view(-1, n).cpu()

    def project(
        self, model: Any, x: dict[str, Tensor], kept: Tensor, keep: float
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        visual, batch = model.model.visual, len(kept)
        z = visual.merger(x["x"].reshape(-1, WIDTH))
        tap = visual.deepstack_merger_list[0](x["tap"].reshape(-1, WIDTH))
        return z.view(batch, -1, z.shape[1]), [tap.view(batch, -1, tap.shape[1])], kept

    def processor(self, tokenizer: PreTrainedTokenizerFast) -> Qwen3VLProcessor:
        tokenizer.video_token, tokenizer.image_token = SPECIAL["video"], SPECIAL["image"]
        for name in ("start", "end"):
            token = SPECIAL[name]
            setattr(tokenizer, f"vision_{'bos' if name == 'start' else 'eos'}_token", token)
        area = {"shortest_edge": SIDE * SIDE, "longest_edge": SIDE * SIDE * SLOTS}
        shape = {"patch_size": PATCH, "temporal_patch_size": 2, "merge_size": 2, **LOOK}
        return Qwen3VLProcessor(
            image_processor=Qwen2VLImageProcessor(
                size={"shortest_edge": SIDE**2, "longest_edge": SIDE**2}, **shape
            ),
            tokenizer=tokenizer,
            video_processor=Qwen3VLVideoProcessor(size=area, **shape),
            chat_template=template(SPECIAL["start"] + SPECIAL["video"] + SPECIAL["end"]),
        )


def _note(seen: dict[str, Tensor], key: str, run: Any) -> Any:
    """A pre-hook that keeps a merger's input, put back at its dense places."""

    def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        x, current = args[0], run()
        if current is not None:
            x = current.expand(x.unflatten(0, (-1, 4)), fill=0.0).flatten(0, 1)
        seen[key] = x.detach()

    return hook
