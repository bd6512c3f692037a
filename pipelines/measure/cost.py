"""The cost of a prompt under a pruning configuration, without running anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from videoprune.config import PruneConfig
from videoprune.cost.operations import Cost, cost
from videoprune.cost.roofline import Step, steps
from videoprune.cost.shapes import ModelShape, TokenFlow
from videoprune.cost.token_flow import token_flow


@dataclass(frozen=True)
class Prompt:
    """A question about one clip. frames: of the video. tokens: of the unpruned prompt, padding included. question: text
    behind the clip, which the LLM's cuts look at; None: all text. size: height and width of frames, for encoders that
    take any."""

    frames: int
    tokens: int
    question: int | None = None
    size: tuple[int, int] | None = None


def predict(
    shape: ModelShape,
    prompt: Prompt,
    prune: PruneConfig,
    *,
    visual_by_layer: Sequence[float] | None = None,
    bytes_per_value: int = 2,
) -> Cost:
    """Operations up to the first token, and cache.

    visual_by_layer: visual tokens that were measured on each layer of the LLM; None: as the configuration wants. Raises
    ValueError for what does not fit the shape.
    """
    return cost(shape, _flow(shape, prompt, prune, visual_by_layer), bytes_per_value=bytes_per_value)


def predict_steps(
    shape: ModelShape, prompt: Prompt, prune: PruneConfig, *, visual_by_layer: Sequence[float] | None = None
) -> tuple[Step, ...]:
    """The same layer by layer, with what each has to move."""
    return steps(shape, _flow(shape, prompt, prune, visual_by_layer))


def _flow(
    shape: ModelShape, prompt: Prompt, prune: PruneConfig, visual_by_layer: Sequence[float] | None
) -> TokenFlow:
    return token_flow(
        shape,
        prune,
        prompt.frames,
        prompt_tokens=prompt.tokens,
        size=prompt.size,
        question_tokens=prompt.question,
        visual_by_layer=visual_by_layer,
    )
