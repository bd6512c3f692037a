"""A `MultiEncoderVLM` with its tokenizer, encoded once and asked many times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer

from videoprune.clock import Stopwatch, now
from videoprune.config import PruneConfig
from videoprune.models.encoded_frames import EncodedFrames, batch_of, clip_of
from videoprune.models.loading import clip_shape, model_folder
from videoprune.models.multi_encoder import MultiEncoderVLM
from videoprune.models.shared_prefix import prefilled, prefix_of_rows
from videoprune.models.survivors import fused_survivors
from videoprune.models.token_steps import steps_of_tokens, tokens_of_steps
from videoprune.models.watching import Watch, watched
from videoprune.plug.current_pass import trace
from videoprune.plug.prefix import Prefix
from videoprune.plug.prompt_trace import with_seconds
from videoprune.plug.settings import Settings
from videoprune.prompts import check_positions
from videoprune.prune.registry import draws
from videoprune.types import Encoded, KeepPlan, Survivors, TimeStep, Trace, VideoFrames, VisualTokens


class MultiEncoderModel:
    """See `VideoModel` and `open_model`."""

    def __init__(self, name: str, config: Any, device: torch.device, dtype: torch.dtype | None) -> None:
        folder = model_folder(name)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")
        model: Any = MultiEncoderVLM.from_pretrained(folder, dtype=dtype or "auto").eval()
        self.model: MultiEncoderVLM = model.to(device)
        self.module: nn.Module = self.model
        self.device = device
        self.num_frames, self.frame_size = clip_shape(name, config)
        self.frames_per_step = 1

    def settings(self, prune: PruneConfig) -> Settings:
        return self.model.settings(prune)

    def encode(
        self, clips: Sequence[VideoFrames], settings: Settings, *, survivors: bool = False
    ) -> list[Encoded]:
        """All clips in one batch, each with its share of the seconds; one by one where something is drawn, so that a
        clip's draw is its own."""
        if draws(settings.config) and len(clips) > 1:
            return [one for clip in clips for one in self.encode([clip], settings, survivors=survivors)]
        generator, clock = torch.Generator().manual_seed(settings.config.seed), Stopwatch()
        started = now(self.device)
        pixels = self.model.frames(clips)
        prepared = now(self.device)
        frames = self.model.encode_frames(pixels, settings, generator, clock)
        encoded = now(self.device)
        tokens = self.model.fuse(clips, frames, settings, generator)
        chosen = clock.seconds
        seconds = {
            "preprocess": prepared - started,
            "encode": encoded - prepared - chosen,
            "encode_prune": chosen,
            "fuse": now(self.device) - encoded,
        }
        each = {stage: value / len(clips) for stage, value in seconds.items()}
        plans = _plans_by_clip(frames, [len(c) for c in clips]) if survivors else [None] * len(clips)
        rows = [clip_of(tokens, row) for row in range(len(clips))]
        return [Encoded(self._trace(t, settings, each), t, p) for t, p in zip(rows, plans, strict=True)]

    def _trace(self, clip: VisualTokens, settings: Settings, seconds: dict[str, float]) -> Trace:
        frames, counts = clip.num_frames(0), self.model.encoder_counts(settings.config)
        dense = {t.name: frames * t.dense for t in self.model.towers}
        return Trace(
            sum(dense.values()),
            {name: (dense[name], frames * kept) for name, kept in counts.items()},
            fused=clip.num_tokens,
            seconds=seconds,
        )

    def answer(
        self,
        encoded: Sequence[Encoded],
        prompts: Sequence[str],
        settings: Settings,
        max_new_tokens: int,
        *,
        watch: Watch | None = None,
        places: bool = False,
    ) -> tuple[list[str], list[Trace]]:
        same = all(e is encoded[0] for e in encoded)
        tokens = batch_of([e.features for e in (encoded[:1] if same else encoded)])
        text = self.tokenizer(list(prompts), return_tensors="pt", padding=True).to(self.device)
        positions = self.model.language_model.config.max_position_embeddings
        check_positions(text["input_ids"].shape[1], positions)
        started = now(self.device)
        prefix = prefix_of_rows(
            encoded, settings.config.llm, self.device, lambda clips: self._prefix(clips, settings)
        )
        with trace(places=places or any(e.survivors is not None for e in encoded)) as traces:
            ids = self.model.generate(
                text["input_ids"],
                text["attention_mask"],
                tokens,
                settings=settings,
                prefix=prefix,
                max_new_tokens=max_new_tokens,
                **watched(watch, self._texts, 0),
            )
        spent = now(self.device) - started
        texts = self._texts(ids)
        # The LLM sees fused tokens alone: what was there before them, the encoders know.
        found = [
            replace(t, dense=e.trace.dense, fused=e.trace.fused) for t, e in zip(traces, encoded, strict=True)
        ]
        return texts, with_seconds(found, spent)

    def _texts(self, ids: Tensor) -> list[str]:
        found: list[str] = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return found

    def last_by_step(self, encoded: Encoded, answered: Trace, steps: int) -> list[int]:
        assert answered.places is not None
        frame = encoded.features.origin[0, list(answered.places.last), 0]
        counts: list[int] = frame.bincount(minlength=steps).tolist()
        return counts

    @torch.no_grad()
    def steps(self, encoded: Encoded, frames: VideoFrames) -> list[TimeStep]:
        return steps_of_tokens(encoded.features, self.model.projectors, frames.pts_seconds)

    @torch.no_grad()
    def of_steps(self, steps: Sequence[TimeStep], like: Encoded) -> Encoded:
        tokens = tokens_of_steps(steps, self.model.projectors, like.features)
        dense = {t.name: len(steps) * t.dense for t in self.model.towers}
        names = tokens.encoder[0].bincount(minlength=len(dense)).tolist()
        counts = {name: (most, left) for (name, most), left in zip(dense.items(), names, strict=True)}
        return Encoded(Trace(sum(dense.values()), counts, fused=tokens.num_tokens), tokens)

    def prefill(
        self, encoded: Sequence[Encoded], settings: Settings, *, grown_from: tuple[Encoded, int] | None = None
    ) -> list[Encoded]:
        """All of it is computed: the projectors say when a frame is within its clip, so none stays the same."""
        return prefilled(encoded, self._prefix(encoded, settings))

    def _prefix(self, encoded: Sequence[Encoded], settings: Settings) -> Prefix:
        return self.model.beginnings(batch_of([e.features for e in encoded]), settings)

    def survivors(self, encoded: Encoded, answered: Trace) -> dict[str, Survivors]:
        assert answered.places is not None
        return fused_survivors(encoded.features, encoded.survivors, answered.places)

    def text_tokens(self, encoded: Encoded, prompt: str) -> int:
        return len(self.tokenizer(prompt)["input_ids"])


def _plans_by_clip(frames: Sequence[EncodedFrames], lengths: Sequence[int]) -> list[list[KeepPlan]]:
    """Of each clip, one plan an encoder."""
    found: list[list[KeepPlan]] = [[] for _ in lengths]
    for one in frames:
        parts = zip(one.plan.keep.split(list(lengths)), one.plan.into.split(list(lengths)), strict=True)
        for clip, (keep, into) in zip(found, parts, strict=True):
            clip.append(KeepPlan(keep, into))
    return found
