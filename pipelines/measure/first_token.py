"""Time to the first token of a stock model, stage by stage."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from videoprune.clock import Mark, mark, now, seconds_between
from videoprune.plug.families import FAMILIES


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
        generate(self.model, inputs, 1)
        total = seconds_between(first, mark(self.device))
        encoder, llm = self.stretches["encoder"], self.stretches["llm"]
        seconds = {
            "encoder": sum(seconds_between(a, b) for a, b in encoder),
            "between": seconds_between(encoder[-1][1], llm[0][0]),
            "llm": sum(seconds_between(a, b) for a, b in llm),
        }
        return {"first_token": total, **seconds, "other": total - sum(seconds.values())}


def generate(model: Any, inputs: dict[str, Tensor], tokens: int) -> None:
    """`tokens` tokens behind each prompt, greedily, whatever they are."""
    with torch.no_grad():
        model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
