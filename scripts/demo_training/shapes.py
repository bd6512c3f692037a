"""What the demo models of stock classes are made of: LLaVA-OneVision and Qwen3-VL, as small as MovingShapes allows.

Encoders and LLMs start from the first demo model's: its SigLIP as it is, its CLIP with finer patches, its LLM.

Shapes: F frames, B clips, T time steps of a clip, g patches along a side, n tokens of a time step, D width of the
encoder, W width of the LLM.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from demo_training.text import moved_table
from videoprune.models.multi_encoder import MultiEncoderVLM
from videoprune.plug.current_pass import Pass, passing
from videoprune.plug.encoder_pass import EncoderPass
from videoprune.plug.installed import installed_on

ENCODERS = Path(__file__).parent / "encoders_both"  # trained on both splits
SIDE, PATCH, WIDTH, BLOCKS, HEADS = 96, 8, 128, 8, 4
GRID = SIDE // PATCH
SPECIAL = {
    "video": "<|video_pad|>",
    "image": "<|image_pad|>",
    "start": "<|vision_start|>",
    "end": "<|vision_end|>",
}
LOOK = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2}


class StockShape:
    """One small model of a stock class. `frames_per_step` frames become one time step."""

    name: str
    frames_per_step = 1
    llm_layers = 8  # the first of the first demo model's
    side, grid = SIDE, GRID  # pixels, patches
    tokens_side = GRID // 2

    def _finish(self, model: Any, out: Path, demo: Path, tokenizer: PreTrainedTokenizerFast) -> Any:
        """Trained encoder, and the first demo model's LLM as a start."""
        source = MultiEncoderVLM.from_pretrained(demo, dtype=torch.float32).language_model.model.state_dict()
        language = model.model.language_model
        table = moved_table(source["embed_tokens.weight"], AutoTokenizer.from_pretrained(demo), tokenizer)
        wanted = {k: v for k, v in source.items() if k in language.state_dict()}
        language.load_state_dict({**wanted, "embed_tokens.weight": table})
        model.tie_weights()
        vision = self.vision(model)
        vision.load_state_dict(checkpoint(out, f"{self.name}-vision.pt"), strict=False)
        vision.requires_grad_(False)
        return model

    def go_on(self, model: Any, folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
        """Take over projector and LLM of the trained model in `folder`; the encoder stays as it is."""
        source = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
        old = AutoTokenizer.from_pretrained(folder)
        state = source.model.state_dict()
        table = state["language_model.embed_tokens.weight"]
        state["language_model.embed_tokens.weight"] = moved_table(table, old, tokenizer)
        held = self.encoder_keys(model)
        model.model.load_state_dict({k: v for k, v in state.items() if k not in held}, strict=False)
        model.tie_weights()

    def encoder_keys(self, model: Any) -> set[str]:
        """Names of the inner model's weights that were trained before the LLM."""
        trained = {
            id(p) for part in self.trained(model) if isinstance(part, nn.Module) for p in part.parameters()
        }
        vision = {id(p) for p in self.vision(model).parameters()} - trained
        return {name for name, p in model.model.named_parameters() if id(p) in vision}

    def vision(self, model: Any) -> nn.Module:
        return model.model.vision_tower

    def trained_vision(self, folder: Path) -> nn.Module:
        """The encoder of a trained model."""
        whole = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
        return self.vision(whole).requires_grad_(True)

    def fixed(self, model: Any, embeds: Tensor) -> Tensor:
        """The prompt's embeddings with what stands at visual places but is no visual token."""
        return embeds

    def _text(self, demo: Path, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
        config = MultiEncoderVLM.config_class.from_pretrained(demo).text_config
        changed = {"vocab_size": len(tokenizer), "num_hidden_layers": self.llm_layers}
        if config.get("layer_types"):
            changed["layer_types"] = config["layer_types"][: self.llm_layers]
        return {**config, **changed}


def checkpoint(out: Path, name: str) -> dict[str, Tensor]:
    """Weights of the encoder trained in `out`, else of the one that comes with the script. Raises FileNotFoundError
    that says how to train it where there is neither."""
    own, given = out / name, ENCODERS / Path(name).with_suffix(".safetensors")
    if own.exists():
        return torch.load(own, map_location="cpu", weights_only=True)["model"]
    if not given.exists():
        stage = "stock-encoder" if own.stem.endswith("-vision") else "encoders"
        raise FileNotFoundError(
            f"{own}: run `train_demo.py {stage} --only {own.stem.removesuffix('-vision')}` first"
        )
    return {key: value.float() for key, value in load_file(given).items()}


def stretched_places(places: Tensor, grid: int) -> Tensor:
    """Position embeddings of a square grid (m, D) -> of grid x grid places."""
    old = round(len(places) ** 0.5)
    square = places.T.reshape(1, -1, old, old)
    return F.interpolate(square, (grid, grid), mode="bicubic").flatten(2)[0].T.contiguous()


@contextmanager
def encoder_pass(model: Any) -> Iterator[Callable[[], EncoderPass | None]]:
    """Within, the vision encoder of a model is pruned as `apply` said; tells what its run is, None without pruning."""
    installed = installed_on(model)
    if installed is None:
        yield lambda: None
        return
    with passing(Pass(installed, installed.default)) as now:
        yield lambda: next(iter(now.encoders.values()), None)


def template(video: str) -> str:
    return (
        "{% for m in messages %}{% for c in m['content'] %}"
        "{% if c['type'] == 'video' %}" + video + "{% else %}{{ c['text'] }}{% endif %}"
        "{% endfor %}{% endfor %}"
    )
