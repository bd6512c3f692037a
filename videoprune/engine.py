"""The spine: encode(frames) -> one `Encoded` a clip, answer(encoded, questions) -> `Answer`s. Encode once, ask many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from videoprune.choice import answer_of
from videoprune.config import PruneConfig, preset
from videoprune.models.video_model import VideoModel, open_model
from videoprune.models.watching import Watch
from videoprune.prompts import prompt
from videoprune.types import Answer, Encoded, Sample, Trace, VideoFrames


class Engine:
    """One model with one pruning configuration: a value on weights that several engines may share.

    model: `demo`, `llava-demo`, `qwen-demo`, a model's folder, a name on a hub, or `random:` and a true shape. prune: a
    preset's name or a configuration. device, dtype, num_frames: as `open_model` takes them. An impossible setting
    raises ValueError here, not at the first question.
    """

    def __init__(
        self,
        model: str | VideoModel = "demo",
        prune: str | PruneConfig = "balanced",
        *,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        num_frames: int | None = None,
    ) -> None:
        self.prune = preset(prune) if isinstance(prune, str) else prune
        self.weights: VideoModel = (
            open_model(model, device=device, dtype=dtype, num_frames=num_frames)
            if isinstance(model, str)
            else model
        )
        self.settings = self.weights.settings(self.prune)

    def with_prune(self, prune: str | PruneConfig) -> Engine:
        """Another engine on the same weights; both may be used, at the same time too."""
        return Engine(self.weights, prune)

    @property
    def model(self) -> nn.Module:
        return self.weights.module

    @property
    def num_frames(self) -> int:
        """Frames that a clip is best sampled to."""
        return self.weights.num_frames

    @property
    def frame_size(self) -> tuple[int, int] | None:
        """Height and width that frames are best decoded to; None: as they are."""
        return self.weights.frame_size

    def encode(self, frames: Sequence[VideoFrames], *, survivors: bool = False) -> list[Encoded]:
        """Stages 1 and 2 for each clip; the question is not seen.

        survivors: answers about these clips will tell which tokens are left.
        """
        return self.weights.encode(frames, self.settings, survivors=survivors)

    def prefill(
        self, encoded: Sequence[Encoded], *, grown_from: tuple[Encoded, int] | None = None
    ) -> list[Encoded]:
        """The clips with what the LLM makes of them before it sees a question, for clips that are asked again and
        again: questions that come together share it in any case. It holds the keys and values of all layers before the
        first cut, and serves engines with the same `llm` settings.

        grown_from: a clip that was prefilled, and how many of its dense tokens the one clip of `encoded` begins with.
        """
        return self.weights.prefill(encoded, self.settings, grown_from=grown_from)

    def answer(
        self,
        encoded: Sequence[Encoded],
        questions: Sequence[Sample | str],
        *,
        max_new_tokens: int = 64,
        watch: Watch | None = None,
        places: bool = False,
    ) -> list[Answer]:
        """Stage 3 and decoding: one question per clip, or any number of them about one clip.

        watch: called after each token with the text so far of every answer; True ends them. places: traces tell which
        tokens reached the LLM and its last layer.
        """
        samples = [Sample(str(i), "", q) if isinstance(q, str) else q for i, q in enumerate(questions)]
        if len(encoded) not in (1, len(samples)):
            raise ValueError(f"questions: {len(samples)} for {len(encoded)} clips; allowed: one per clip")
        clips = list(encoded) * (len(samples) if len(encoded) == 1 else 1)
        prompts = [prompt(s) for s in samples]
        texts, traces = self.weights.answer(
            clips, prompts, self.settings, max_new_tokens, watch=watch, places=places
        )
        return [
            answer_of(said, s, self._whole(clip, llm))
            for said, s, clip, llm in zip(texts, samples, clips, traces, strict=True)
        ]

    def text_tokens(self, encoded: Encoded, question: Sample | str) -> int:
        """Tokens of a question's prompt about the clip that are no visual ones."""
        sample = Sample("0", "", question) if isinstance(question, str) else question
        return self.weights.text_tokens(encoded, prompt(sample))

    def _whole(self, clip: Encoded, llm: Trace) -> Trace:
        """The LLM's trace with the encoders' counts."""
        found = None if clip.survivors is None else self.weights.survivors(clip, llm)
        return replace(llm, encoder=clip.trace.encoder, survivors=found)
