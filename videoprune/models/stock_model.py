"""A stock video language model of transformers, encoded once and asked many times; the model's own code runs.

Shapes: F frames of the encoder, B prompts, V visual places of a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, AutoTokenizer

from videoprune.clock import now
from videoprune.config import PruneConfig
from videoprune.models.inputs import Clip, PlainInputs
from videoprune.models.loading import RANDOM, clip_shape, place_of
from videoprune.models.processor_inputs import ProcessorInputs
from videoprune.models.random_weights import random_model
from videoprune.models.survivors import EncoderRecord, record_of, stock_survivors
from videoprune.plug.apply import hooked, settings_for
from videoprune.plug.current_pass import Pass, passing, trace
from videoprune.plug.encoder_pass import EncoderPass
from videoprune.plug.installed import Installed
from videoprune.plug.llm_door import visual_places
from videoprune.plug.prompt_trace import with_seconds
from videoprune.plug.settings import Settings, own_settings
from videoprune.types import Encoded, Survivors, Trace, VideoFrames


@dataclass(frozen=True)
class Features:
    """What an encoder made of one clip.

    output: as the family's `get_*_features` returns it, NaN where a token was dropped, at `marked` places. kind:
    "video" or "image", as the features are called. clip: without its pixels. frames: patches of each frame as the
    encoder saw them.
    """

    output: Any
    kind: str
    clip: Clip
    marked: int
    frames: tuple[int, ...] = ()


class StockVideoModel:
    """See `VideoModel` and `open_model`."""

    def __init__(self, name: str, config: Any, device: torch.device, dtype: torch.dtype | None) -> None:
        self.inputs: PlainInputs | ProcessorInputs
        if name.startswith(RANDOM):
            model: Any = random_model(name.removeprefix(RANDOM), dtype=dtype or torch.bfloat16)
            self.inputs = PlainInputs(model.config)
        else:
            where = place_of(name)
            model = AutoModelForImageTextToText.from_pretrained(where, dtype=dtype or "auto").eval()
            if "frame_size" in own_settings(config):  # a calibrated model's lambdas lie there too
                tokenizer = AutoTokenizer.from_pretrained(where, padding_side="left")
                self.inputs = PlainInputs(config, tokenizer)
            else:
                self.inputs = ProcessorInputs(where)
        self.module: nn.Module = model.to(device)
        self.model, self.device = model, device
        self.num_frames, self.frame_size = clip_shape(name, config)

    @property
    def hooks(self) -> Installed:
        """What its calls are pruned by; put there again should somebody have removed it."""
        return hooked(self.model)

    def settings(self, prune: PruneConfig) -> Settings:
        return settings_for(self.model, prune)

    @torch.no_grad()
    def encode(
        self, clips: Sequence[VideoFrames], settings: Settings, *, survivors: bool = False
    ) -> list[Encoded]:
        """Clip by clip. The question is not seen."""
        return [self._encode(frames, settings, survivors) for frames in clips]

    def _encode(self, frames: VideoFrames, settings: Settings, survivors: bool) -> Encoded:
        started = now(self.device)
        clip = self.inputs.clip(frames)
        given = self._moved(clip.tensors)
        prepared = now(self.device)
        kind = "video" if "pixel_values_videos" in given else "image"
        with passing(Pass(self.hooks, settings)) as call:
            output = getattr(self.model.model, f"get_{kind}_features")(**given, return_dict=True)
        runs, done = call.encoded, now(self.device)
        chosen = sum(run.clock.seconds for run in runs)
        seconds = {
            "preprocess": prepared - started,
            "encode": done - prepared - chosen,
            "encode_prune": chosen,
            "fuse": 0.0,
        }
        marked = sum(run.marked for run in runs)
        features = Features(output, kind, clip.without_pixels(), marked, tuple(call.frames))
        record = record_of(runs[0] if runs else None, len(frames)) if survivors else None
        return Encoded(self._trace(clip, runs, features.marked, seconds), features, record)

    def _trace(
        self, clip: Clip, runs: Sequence[EncoderPass], marked: int, seconds: dict[str, float]
    ) -> Trace:
        dense = int(self._visual(torch.tensor(clip.ids)).sum())
        units = [u for run in runs for u in run.units()] or [(dense, dense)]
        counts = (sum(u for u, _ in units), sum(u for _, u in units))
        return Trace(dense, {"vision": counts}, fused=dense - marked, seconds=seconds)

    @torch.no_grad()
    def answer(
        self, encoded: Sequence[Encoded], prompts: Sequence[str], settings: Settings, max_new_tokens: int
    ) -> tuple[list[str], list[Trace]]:
        features: list[Features] = [e.features for e in encoded]
        inputs = self._moved(self.inputs([f.clip for f in features], prompts))
        given = {features[0].kind: _joined([f.output for f in features])}
        started = now(self.device)
        # A plain generation of greedy tokens; it is told what was encoded before, and which places are empty.
        frames = [n for f in features for n in f.frames]
        call = Pass(self.hooks, settings, marked=sum(f.marked for f in features), frames=frames)
        with passing(call), trace(places=any(e.survivors is not None for e in encoded)) as traces:
            ids = self.model.generate(
                **inputs, mm_encoder_outputs=given, max_new_tokens=max_new_tokens, do_sample=False
            )
        spent = now(self.device) - started
        texts = self.inputs.decode(ids[:, inputs["input_ids"].shape[1] :])
        return texts, with_seconds(traces, spent)

    def survivors(self, encoded: Encoded, answered: Trace) -> dict[str, Survivors]:
        record: EncoderRecord = encoded.survivors
        assert answered.places is not None
        return {"vision": stock_survivors(record, answered.dense, answered.places)}

    def text_tokens(self, encoded: Encoded, prompt: str) -> int:
        ids = self.inputs([encoded.features.clip], [prompt])["input_ids"]
        return int((~self._visual(ids)).sum())

    def _visual(self, ids: Tensor) -> Tensor:
        return visual_places(ids, self.hooks.family.placeholders)

    def _moved(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        dtype = self.model.dtype
        return {k: v.to(self.device, dtype if v.is_floating_point() else v.dtype) for k, v in tensors.items()}


def _joined(outputs: Sequence[Any]) -> Any:
    """Features of several clips as if they had been encoded together."""
    first = outputs[0]
    joined = type(first)(**dict(first.items()))  # generation may change what it is given
    joined.pooler_output = _cat([o.pooler_output for o in outputs])
    if first.get("deepstack_features") is not None:
        joined.deepstack_features = [
            _cat(parts) for parts in zip(*(o.deepstack_features for o in outputs), strict=True)
        ]
    return joined


def _cat(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], Tensor):
        # Clips of several lengths, (1, tokens, W) each, become one row of tokens.
        if len({p.shape[1:] for p in parts}) > 1:
            parts = [torch.cat([p.flatten(0, 1) for p in parts])[None]]
        return parts[0] if len(parts) == 1 else torch.cat(list(parts))
    return [row for part in parts for row in part]
