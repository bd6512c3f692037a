"""The spine: encode(frames) -> VisualTokens, answer(tokens, questions) -> Answers. Encode once, ask many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from videoprune.clock import now
from videoprune.config import PruneConfig, preset
from videoprune.models.loading import load_multi_encoder
from videoprune.prompts import parse_choice, prompt
from videoprune.stock_engine import StockEngine, stock_config
from videoprune.types import Answer, KeepPlan, PruneTrace, Sample, VideoFrames, VisualTokens


class Engine:
    """One model with one pruning configuration.

    model: `demo`, or a folder that `MultiEncoderVLM.save_pretrained` wrote with its tokenizer. prune: a preset's
    name or a PruneConfig. device: a torch device; None takes a GPU where there is one.
    """

    def __init__(
        self, model: str = "demo", prune: str | PruneConfig = "balanced", *, device: str | None = None
    ) -> None:
        self.prune = preset(prune) if isinstance(prune, str) else prune
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.model, self.tokenizer = load_multi_encoder(model, self.device)
        self.parts: dict[str, float] = {}  # seconds within the last `encode`: preprocess, prune
        self.model.resolve(self.prune)  # an impossible setting fails here, not at the first question

    @property
    def num_frames(self) -> int:
        return self.model.config.num_frames

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width that frames are best decoded to: the largest that any encoder looks at."""
        side = max(t.model.config.image_size for t in self.model.towers)
        return side, side

    def encode(
        self, frames: Sequence[VideoFrames], *, plans: dict[str, KeepPlan] | None = None
    ) -> tuple[VisualTokens, dict[str, float]]:
        """Stages 1 and 2 for a batch of clips: tokens (B, N, W), rows padded, and seconds by stage.

        `plans` receives, by encoder, what became of each dense patch of each frame.
        """
        seconds: dict[str, float] = {}
        tokens = self.model.encode(frames, self.prune, seconds, plans)
        self.parts = {"preprocess": 0.0, "prune": self.model.choosing.seconds}
        return tokens, seconds

    def answer(
        self,
        tokens: VisualTokens,
        questions: Sequence[Sample | str],
        *,
        max_new_tokens: int = 64,
        last_places: list[list[int]] | None = None,
    ) -> list[Answer]:
        """Stage 3 and decoding: one question per row of `tokens`, or any number of them for one clip's tokens.

        `last_places` receives, by question, which of the tokens the last LLM layer computes on.
        """
        samples = [Sample(str(i), "", q) if isinstance(q, str) else q for i, q in enumerate(questions)]
        if tokens.x.shape[0] not in (1, len(samples)):
            raise ValueError(
                f"questions: {len(samples)} for {tokens.x.shape[0]} clips; allowed: one per clip"
            )
        text = self.tokenizer([prompt(s) for s in samples], return_tensors="pt", padding=True).to(self.device)
        started = now(self.device)
        ids, layers = self.model.generate(
            text["input_ids"],
            text["attention_mask"],
            tokens,
            prune=self.prune,
            max_new_tokens=max_new_tokens,
            last_places=last_places is not None,
        )
        if last_places is not None:
            last_places += layers.last_places or []
        seconds = {"llm": now(self.device) - started - layers.seconds, "llm_prune": layers.seconds}
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [
            Answer(
                text=said.strip(),
                choice=parse_choice(said, len(sample.options), options=sample.options)
                if sample.options
                else "",
                trace=self._trace(tokens, row, layers.row(row), seconds, len(samples)),
            )
            for row, (said, sample) in enumerate(zip(texts, samples, strict=True))
        ]

    def trace_encoding(self, tokens: VisualTokens, row: int) -> PruneTrace:
        """Counts of stages 1 and 2 for one clip."""
        frames, counts = tokens.num_frames(row), self.model.encoder_counts(self.prune)
        dense = {t.name: t.dense for t in self.model.towers}
        return PruneTrace(
            dense=frames * sum(dense.values()),
            encoder={name: (frames * dense[name], frames * kept) for name, kept in counts.items()},
            fused=int(tokens.mask[row].sum()),
        )

    def _trace(
        self, tokens: VisualTokens, row: int, layers: tuple[int, ...], seconds: dict[str, float], share: int
    ) -> PruneTrace:
        own = 0 if tokens.x.shape[0] == 1 else row
        each = {stage: value / share for stage, value in seconds.items()}
        return replace(self.trace_encoding(tokens, own), llm_layers=layers, seconds=each)


AnyEngine = Engine | StockEngine


def open_engine(
    model: str = "demo", prune: str | PruneConfig = "balanced", *, device: str | None = None
) -> AnyEngine:
    """The engine for `model`: `demo` or a multi-encoder folder, else a stock model's folder or hub name.

    Raises ValueError for what is neither, or what cannot be pruned as asked.
    """
    kind = Engine if stock_config(model) is None else StockEngine
    return kind(model, prune, device=device)
