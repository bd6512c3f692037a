"""What is left of a prompt in a KV cache. The record travels with the cache: a later step is told by it.

Layers hold different numbers of keys, and rows of a batch hold different ones in the same layer, so each layer has its
own key mask. Whoever holds the cache (generation, a chat, a prefix that is copied and used again) counts in tokens
of the whole prompt.

Shapes: B rows, S tokens of the prompt, n tokens of it left in a layer, m tokens that came after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from videoprune.plug.attention import FLASH, additive_mask
from videoprune.plug.current_pass import current_keys


class KeptKeys:
    """masks: by layer, which of the keys that the prompt left are real, bool (B, n). length: S. visual: bool (B, n),
    visual tokens in the last layer."""

    def __init__(self, masks: Sequence[Tensor], padded: Sequence[bool], length: int, visual: Tensor) -> None:
        self.masks, self.padded = list(masks), list(padded)
        self.length, self._last_visual = length, visual
        self.later_padded = False  # whether a row has padding behind the prompt

    @cached_property
    def tail(self) -> int:
        """Tokens behind the prompt's last visual one, which every layer holds."""
        return int(self._last_visual.flip(1).long().cumsum(1).eq(0).sum(1).min())

    @property
    def missing(self) -> int:
        """Tokens of the prompt that the first layer does not hold."""
        return self.length - self.masks[0].shape[1]

    def begin_step(self, attention_mask: Tensor | None, new: int, cached: int) -> Tensor | None:
        """Which of the tokens behind the prompt are real: bool (B, m), None: all of them.

        attention_mask: (B, tokens of the whole text) as the caller gives it, or None. new: tokens of this step.
        cached: tokens before it, in tokens of the whole text.
        """
        if attention_mask is None or attention_mask.ndim != 2:
            return None
        wanted = cached + new
        if attention_mask.shape[1] != wanted:
            raise ValueError(
                f"attention_mask: {attention_mask.shape[1]} tokens; allowed: {wanted}, those of the prompt that was "
                "pruned included"
            )
        if new > 1:  # only several tokens at once can bring padding; a single one spares the GPU the question
            self.later_padded = not bool(attention_mask[:, self.length :].all())
        return attention_mask[:, self.length :].bool() if self.later_padded else None

    def step_mask(self, layer: int, new: int, cached: int, later: Tensor | None, kind: str) -> Tensor | None:
        """Keys that the `new` tokens of a step see in a layer; None: all, in their order.

        cached, later: as in `begin_step`. -> (B, n + m) for flash kernels, (B, 1, new, n + m) for others, bool.
        """
        padded = self.padded[layer] or self.later_padded
        if not padded and (new == 1 or kind in FLASH):
            return None
        mask = self.masks[layer]
        if later is None:
            later = mask.new_ones(mask.shape[0], cached + new - self.length)
        keys = torch.cat([mask, later], 1)
        if kind in FLASH:
            return keys
        if new == 1:
            return keys[:, None, None]
        allowed = keys[:, None, :].expand(-1, new, -1).clone()
        future = torch.ones(new, new, dtype=torch.bool, device=keys.device).triu(1)
        allowed[:, :, -new:] &= ~future
        return allowed[:, None]

    def crop(self, tokens: int, cached: int) -> None:
        """Forget the last `tokens` of the `cached` ones. Raises ValueError where visual tokens would have to go."""
        into = tokens - (cached - self.length)
        if into <= 0:
            return
        if into > self.tail:
            raise ValueError(
                f"tokens_to_remove={tokens}; allowed with a pruned cache: up to {cached - self.length + self.tail}, "
                "the tokens behind the last visual one"
            )
        self.rows(lambda mask: mask[:, :-into])
        self.length, self.tail = self.length - into, self.tail - into

    def rows(self, change: Callable[[Tensor], Tensor]) -> None:
        """Reorder, repeat, choose or shorten rows; layers that share a mask go on sharing one."""
        changed = {id(mask): change(mask) for mask in self.masks}
        self.masks = [changed[id(mask)] for mask in self.masks]


class PrunedCache(DynamicCache):
    """A DynamicCache with keys of a pruned prompt. It counts in tokens of the whole prompt."""

    kept: KeptKeys

    @staticmethod
    def adopt(cache: DynamicCache, kept: KeptKeys) -> None:
        """Make `cache`, as the caller holds it, one of a pruned prompt: it stays the same object."""
        cache.__class__ = PrunedCache
        cache.kept = kept  # type: ignore[attr-defined]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return super().get_seq_length(0) + self.kept.missing

    def update(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if current_keys() is not self.kept:
            raise ValueError(
                "cache: it holds a prompt that was pruned; allowed: to go on with the model that made it, while it "
                "is pruned"
            )
        return super().update(*args, **kwargs)

    def crop(self, tokens_to_remove: int) -> None:
        cached = self.get_seq_length()
        count = cached - tokens_to_remove if tokens_to_remove > 0 else -tokens_to_remove
        if count <= 0:
            return
        self.kept.crop(count, cached)
        super().crop(-count)

    def reset(self) -> None:
        super().reset()
        self.__class__ = DynamicCache  # type: ignore[assignment]
        del self.kept

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)  # type: ignore[arg-type]
        self.kept.rows(lambda mask: mask.index_select(0, beam_idx.to(mask.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self.kept.rows(lambda mask: mask.repeat_interleave(repeats, 0))

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self.kept.rows(lambda mask: mask[indices])


def as_bias(allowed: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A bool mask (B, 1, rows, keys) as additive logits; key masks (B, keys) of flash kernels as they are."""
    return additive_mask(allowed, dtype) if allowed is not None and allowed.ndim == 4 else allowed
