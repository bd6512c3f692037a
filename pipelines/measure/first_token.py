"""Time to the first token of a stock model, stage by stage, and the operations that it stands for.

Shapes: B clips in a call, L layers of the LLM.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.measure.cost import predict
from videoprune.clock import Mark, mark, now, seconds_between
from videoprune.config import PruneConfig
from videoprune.cost.operations import Cost
from videoprune.models.shapes import model_shape
from videoprune.plug.families import FAMILIES

STAGES = ("first_token", "encoder", "between", "llm", "other")


class FirstTokenTimer:
    """Hooks on a stock model that say when its encoder and its LLM begin and end.

    On a GPU every stage lies between two CUDA events, and the host waits for none of them before the token is there.
    model: of one of the `FAMILIES`; `apply` and `remove` may be called on it between the runs.
    """

    def __init__(self, model: Any) -> None:
        self.model, self.device = model, torch.device(model.device)
        self.stretches: dict[str, list[list[Mark]]] = {"encoder": [], "llm": []}
        family = FAMILIES[model.config.model_type](model)
        self._hook("encoder", family.vision)
        self._hook("llm", family.language_model)

    def _hook(self, name: str, module: nn.Module) -> None:
        found = self.stretches[name]
        module.register_forward_pre_hook(lambda m, a: found.append([mark(self.device)]), prepend=True)
        module.register_forward_hook(lambda m, a, out: found[-1].append(mark(self.device)))

    def run(self, inputs: dict[str, Tensor]) -> dict[str, float]:
        """Seconds of one call of `generate` for one token, and of its parts.

        first_token: the whole call. encoder: the vision tower, in Qwen-VL with its projector. between: from there to
        the LLM: projector, pooling, choosing over the clip, the prompt's embeddings. llm: its layers. other: what is
        before the encoder and behind the LLM, the head with it.
        """
        for found in self.stretches.values():
            found.clear()
        now(self.device)  # nothing of an earlier run is left to do
        first = mark(self.device)
        first_token(self.model, inputs)
        total = seconds_between(first, mark(self.device))
        encoder, llm = self.stretches["encoder"], self.stretches["llm"]
        seconds = {
            "encoder": sum(seconds_between(a, b) for a, b in encoder),
            "between": seconds_between(encoder[-1][1], llm[0][0]),
            "llm": sum(seconds_between(a, b) for a, b in llm),
        }
        return {"first_token": total, **seconds, "other": total - sum(seconds.values())}


def first_token(model: Any, inputs: dict[str, Tensor]) -> None:
    """One token behind each prompt, greedily."""
    with torch.no_grad():
        model.generate(**inputs, max_new_tokens=1, min_new_tokens=1, do_sample=False)


def without_calibration(prune: PruneConfig) -> PruneConfig:
    """What `apply` makes of it for a model that no lambda was found for: fixed shares of the same average."""
    if prune.llm.method == "adaptive" and prune.llm.lambda_ is None:
        return prune.replace(**{"llm.method": "fixed"})
    return prune


def first_token_cost(
    model: Any,
    prune: PruneConfig,
    *,
    frames: int,
    prompt_tokens: int,
    question_tokens: int,
    size: tuple[int, int],
    visual_by_layer: Sequence[int] | None,
) -> Cost:
    """Operations up to the first token of one prompt, and its cache, from shapes and counts: torch counts no fused
    attention on a CPU. The arguments are those of `predict`."""
    return predict(
        model_shape(model.config),
        frames,
        prompt_tokens,
        prune,
        size=size,
        question_tokens=question_tokens,
        visual_by_layer=visual_by_layer,
        bytes_per_value=model.dtype.itemsize,
    )
