"""The spine for stock video language models of transformers: the same two steps as `Engine`, the model's own code.

Shapes: T frames, B questions, V visual places of a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer

from videoprune.clock import now
from videoprune.config import PruneConfig, preset
from videoprune.models.inputs import PlainInputs, own_settings, plain_size
from videoprune.models.loading import demo_names, model_folder
from videoprune.models.processor_inputs import ProcessorInputs
from videoprune.models.random_weights import random_config, random_model
from videoprune.plug.apply import apply, session, trace
from videoprune.plug.families import FAMILIES
from videoprune.plug.llm_door import visual_places
from videoprune.prompts import parse_choice, prompt
from videoprune.types import Answer, PruneTrace, Sample, VideoFrames

RANDOM = "random:"
_PIXELS = ("pixel_values_videos", "pixel_values", "pixel_attention_mask")
_TEXT = ("input_ids", "attention_mask", "mm_token_type_ids")


@dataclass(frozen=True)
class EncodedClip:
    """What `StockEngine.encode` hands to `answer`: the encoder's output, NaN where a token was dropped.

    kind: "video" or "image", as the family's features are called. units: tokens of each frame before and after.
    """

    frames: VideoFrames
    features: Any
    kind: str
    units: tuple[tuple[int, int], ...]


class StockEngine:
    """One stock model with one pruning configuration.

    model: a name on the Hugging Face hub, a local folder with its processor, `llava-demo`, `qwen-demo`, or `random:`
    and a name from configs/models: true shape, random weights, to measure speed with. prune: a preset's name or a
    configuration, as `videoprune.apply` takes it. device: None takes a GPU where there is one. dtype: None takes what
    the weights are stored in on a GPU, float32 on a CPU; bfloat16 for random weights. num_frames: None takes the
    model's own number, or 8. frame_size: height and width that frames are best decoded to; None: as they are.
    """

    def __init__(
        self,
        model: str,
        prune: str | PruneConfig = "balanced",
        *,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        num_frames: int | None = None,
    ) -> None:
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.inputs: PlainInputs | ProcessorInputs
        if model.startswith(RANDOM):
            self.model: Any = random_model(model.removeprefix(RANDOM), dtype=dtype or torch.bfloat16)
            self.inputs = PlainInputs(self.model.config)
        else:
            where = str(model_folder(model)) if model in demo_names() else model
            dtype = dtype or (torch.float32 if self.device == "cpu" else None)
            self.model = AutoModelForImageTextToText.from_pretrained(where, dtype=dtype or "auto").eval()
            if "frame_size" in own_settings(self.model.config):  # a calibrated model's lambdas lie there too
                tokenizer = AutoTokenizer.from_pretrained(where, padding_side="left")
                self.inputs = PlainInputs(self.model.config, tokenizer)
            else:
                self.inputs = ProcessorInputs(where)
        self.model.to(self.device)
        frames, self.frame_size = stock_frames(model, self.model.config)
        self.num_frames = num_frames or frames
        self.parts: dict[str, float] = {}  # seconds within the last `encode`: preprocess, prune
        self.set_prune(prune)

    def set_prune(self, prune: str | PruneConfig) -> None:
        self.prune = preset(prune) if isinstance(prune, str) else prune
        apply(self.model, self.prune)

    def encode(self, frames: Sequence[VideoFrames]) -> tuple[list[EncodedClip], dict[str, float]]:
        """Encode clips one by one, and seconds by stage. The question is not seen."""
        self.parts = {"preprocess": 0.0, "prune": 0.0}
        started = now(self.device)
        clips = [self._encode(one) for one in frames]
        return clips, {"encode": now(self.device) - started, "fuse": 0.0}

    def answer(
        self, tokens: Sequence[EncodedClip], questions: Sequence[Sample | str], *, max_new_tokens: int = 64
    ) -> list[Answer]:
        """One question per clip, or any number of them about one clip."""
        samples = [Sample(str(i), "", q) if isinstance(q, str) else q for i, q in enumerate(questions)]
        if len(tokens) not in (1, len(samples)):
            raise ValueError(f"questions: {len(samples)} for {len(tokens)} clips; allowed: one per clip")
        clips = list(tokens) * (len(samples) if len(tokens) == 1 else 1)
        inputs = self._inputs([c.frames for c in clips], [prompt(s) for s in samples])
        for name in _PIXELS:
            inputs.pop(name, None)
        features = {clips[0].kind: _join([c.features for c in clips])}
        started = now(self.device)
        with torch.no_grad():
            ids = self.model.generate(
                **inputs, mm_encoder_outputs=features, max_new_tokens=max_new_tokens, do_sample=False
            )
        spent, layers = now(self.device) - started, trace(self.model)
        texts = self.inputs.decode(ids[:, inputs["input_ids"].shape[1] :])
        chosen = layers.llm_seconds
        seconds = {"llm": (spent - chosen) / len(samples), "llm_prune": chosen / len(samples)}
        return [
            Answer(
                text=said.strip(),
                choice=parse_choice(said, len(s.options), options=s.options) if s.options else "",
                trace=self._trace(clip, inputs["input_ids"][row], kept, seconds),
            )
            for row, (said, s, clip, kept) in enumerate(
                zip(texts, samples, clips, layers.layers, strict=True)
            )
        ]

    def _encode(self, frames: VideoFrames) -> EncodedClip:
        started = now(self.device)
        inputs = self._inputs([frames], [""])
        self.parts["preprocess"] += now(self.device) - started
        given = {k: v for k, v in inputs.items() if k not in _TEXT}
        core = self.model.model
        kind = "video" if "pixel_values_videos" in given else "image"
        with torch.no_grad():
            features = getattr(core, f"get_{kind}_features")(**given, return_dict=True)
        made = trace(self.model)
        self.parts["prune"] += made.encoder_seconds
        return EncodedClip(frames, features, kind, made.units)

    def text_tokens(self, clip: VideoFrames, text: str) -> int:
        """Tokens of a prompt about `clip` that are no visual ones."""
        return int((~self._visual(self._inputs([clip], [text])["input_ids"])).sum())

    def _visual(self, ids: Tensor) -> Tensor:
        return visual_places(ids, session(self.model).family.placeholders)

    def _inputs(self, clips: Sequence[VideoFrames], texts: Sequence[str]) -> dict[str, Any]:
        dtype = self.model.dtype
        return {
            k: v.to(self.device, dtype if v.is_floating_point() else v.dtype)
            for k, v in self.inputs(clips, texts).items()
        }

    def _trace(
        self, clip: EncodedClip, ids: Tensor, layers: tuple[int, ...], seconds: dict[str, float]
    ) -> PruneTrace:
        dense = int(self._visual(ids).sum())
        made, left = (sum(u[i] for u in clip.units) for i in (0, 1))
        counts = {"vision": (made, left) if clip.units else (dense, dense)}
        return PruneTrace(dense, counts, fused=layers[0], llm_layers=layers, seconds=seconds)


def stock_config(name: str) -> Any | None:
    """The configuration of a stock model that can be pruned, or None if `name` is none (or not there).

    name: a hub name, a folder, a model that comes with the package, or `random:` and what `random_config` takes.
    """
    if name.startswith(RANDOM):
        return random_config(name.removeprefix(RANDOM))
    where = str(model_folder(name)) if name in demo_names() else name
    if not Path(where).is_dir() and "/" not in where:
        return None
    try:
        config = AutoConfig.from_pretrained(where)
    except (OSError, ValueError):
        return None
    return config if config.model_type in FAMILIES else None


def stock_frames(name: str, config: Any) -> tuple[int, tuple[int, int] | None]:
    """Frames per clip, and the height and width they are best decoded to; None: as they are, a processor resizes."""
    own = own_settings(config)
    if "frame_size" in own:
        return own["num_frames"], (own["frame_size"], own["frame_size"])
    resizes = not name.startswith(RANDOM) and getattr(config.vision_config, "image_size", None) is None
    return 8, None if resizes else plain_size(config)


def _join(outputs: Sequence[Any]) -> Any:
    """Features of several clips as if they had been encoded together."""
    first = outputs[0]
    if len(outputs) == 1:
        return first
    joined = type(first)(**dict(first.items()))
    joined.pooler_output = _cat([o.pooler_output for o in outputs])
    if first.get("deepstack_features") is not None:
        joined.deepstack_features = [
            _cat(parts) for parts in zip(*(o.deepstack_features for o in outputs), strict=True)
        ]
    return joined


def _cat(parts: Sequence[Any]) -> Any:
    return torch.cat(list(parts)) if isinstance(parts[0], Tensor) else [row for part in parts for row in part]
