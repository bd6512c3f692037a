"""Decoding behind a pruned prompt: each layer goes on from what its part of the cache holds.

Shapes: B rows, m tokens behind the prompt.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from videoprune.plug.kept_keys import KeptKeys, as_bias
from videoprune.plug.llm_attention import attention_kind
from videoprune.plug.llm_pass import LayerCall


@dataclass(frozen=True)
class Step:
    """Tokens behind a pruned prompt: each layer sees its own survivors, and what came after them.

    cached: tokens before this step, in tokens of the whole text. later: which of those behind the prompt are no
    padding, bool (B, m); None: all of them. masks: made so far, by the mask of the prompt's keys, which layers between
    two cuts share.
    """

    keys: KeptKeys
    language_model: nn.Module
    cached: int
    later: Tensor | None
    masks: dict[int, Tensor | None] = field(default_factory=dict)

    def before_layer(
        self, index: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> LayerCall:
        hidden = args[0] if args else kwargs["hidden_states"]
        shared = id(self.keys.masks[index])
        if shared not in self.masks:
            kind = attention_kind(self.language_model)
            mask = self.keys.step_mask(index, hidden.shape[1], self.cached, self.later, kind)
            self.masks[shared] = as_bias(mask, hidden.dtype)
        return args, {**kwargs, "attention_mask": self.masks[shared], "position_ids": None}
