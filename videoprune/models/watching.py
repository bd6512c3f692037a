"""Looking on while texts are generated, and ending it early.

Shapes: B prompts, S ids so far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

# Called after each token with the new text of every prompt; True ends the generation.
Watch = Callable[[Sequence[str]], bool]


class _Watching(StoppingCriteria):
    def __init__(self, watch: Watch, decode: Callable[[Tensor], list[str]], before: int) -> None:
        self.watch, self.decode, self.before = watch, decode, before

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """input_ids: (B, S). -> bool (B,), which rows are done."""
        done = self.watch(self.decode(input_ids[:, self.before :]))
        return torch.full((len(input_ids),), bool(done), device=input_ids.device)


def watched(watch: Watch | None, decode: Callable[[Tensor], list[str]], before: int) -> dict[str, Any]:
    """Arguments of `generate`. decode: new ids as texts. before: ids of the prompt in front of the new ones."""
    return (
        {}
        if watch is None
        else {"stopping_criteria": StoppingCriteriaList([_Watching(watch, decode, before)])}
    )
