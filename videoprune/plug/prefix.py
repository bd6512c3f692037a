"""What an LLM makes of the beginning of prompts, up to their last visual token: the same for every question about a
clip, since no layer before the first cut lets a visual token see the question. Computed once, it is shared: a question
then computes on its own tokens alone, until the first cut asks for all.

Shapes: C clips, B rows of questions, P tokens of a beginning that are left before the first cut, W width, Hk key heads,
d head width, r rotated width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from videoprune.config import LLMPrune
from videoprune.prune.counts import cut_layers


@dataclass(frozen=True)
class Prefix:
    """Beginnings of C prompts, padded on the left.

    made_with: how the LLM was pruned. places: int64 (C, P), where their tokens are in the beginning of the whole
    prompt. visual, valid: bool (C, P), which of them are visual, and which are no padding. embeds: (C, P, W), what
    enters the LLM. cos, sin: (C, P, r). keys, values: (C, Hk, P, d), by layer before the first cut. arrived:
    (C, P, W), what arrives at the first cut, before the layer's DeepStack features; None without a cut. before:
    (C, P, W), what the layer before the cut computed on, where its attention chooses.
    """

    made_with: LLMPrune
    places: Tensor
    visual: Tensor
    valid: Tensor
    embeds: Tensor
    cos: Tensor
    sin: Tensor
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    arrived: Tensor | None = None
    before: Tensor | None = None

    @property
    def length(self) -> int:
        return self.valid.shape[1]

    @property
    def num_bytes(self) -> int:
        """Memory that its tensors hold."""
        tensors = [getattr(self, name) for name in self._tensors()] + [
            x for n in _LAYERS for x in getattr(self, n)
        ]
        return sum(t.numel() * t.element_size() for t in tensors)

    def rows(self, index: Tensor) -> Prefix:
        """The beginning of each row's prompt. index: int64 (B,), its clip."""
        return self._each(lambda x, _: x.index_select(0, index))

    def one(self, clip: int) -> Prefix:
        """One clip's, without padding."""
        padding = self.length - int(self.valid[clip].sum())

        def part(x: Tensor, tokens: int) -> Tensor:
            return x[clip : clip + 1].narrow(tokens, padding, self.length - padding)

        return self._each(part)

    def until(self, end: int) -> Prefix | None:
        """Of one clip's, without padding, the tokens before the place `end`; None where there are none."""
        count = int((self.places[0] < end).sum())
        return self._each(lambda x, tokens: x.narrow(tokens, 0, count)) if count else None

    @staticmethod
    def joined(parts: Sequence[Prefix]) -> Prefix:
        """Those of several clips, made with the same settings."""
        longest = max(part.length for part in parts)
        padded = [part._padded(longest) for part in parts]
        tensors: dict[str, Any] = {n: torch.cat([getattr(p, n) for p in padded]) for n in parts[0]._tensors()}
        layers: dict[str, Any] = {n: _cat_layers([getattr(p, n) for p in padded]) for n in _LAYERS}
        return replace(parts[0], **tensors, **layers)

    def _padded(self, length: int) -> Prefix:
        missing = length - self.length

        def longer(x: Tensor, tokens: int) -> Tensor:
            shape = list(x.shape)
            shape[tokens] = missing
            return torch.cat([x.new_zeros(shape), x], tokens)

        return self._each(longer) if missing else self

    def _tensors(self) -> list[str]:
        """Names of those that are tensors."""
        return [f.name for f in fields(self) if isinstance(getattr(self, f.name), Tensor)]

    def _each(self, change: Callable[[Tensor, int], Tensor]) -> Prefix:
        """change: of a tensor and which of its dimensions counts tokens."""
        tensors: dict[str, Any] = {name: change(getattr(self, name), 1) for name in self._tensors()}
        layers: dict[str, Any] = {name: tuple(change(x, 2) for x in getattr(self, name)) for name in _LAYERS}
        return replace(self, **tensors, **layers)


_LAYERS = ("keys", "values")


def _cat_layers(parts: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
    return tuple(torch.cat(layer) for layer in zip(*parts, strict=True))


class Reached(Exception):  # noqa: N818 - it is no error
    """The first cut is reached: nothing behind it is the same for all questions."""


def shared_layers(config: LLMPrune, num_layers: int) -> int:
    """Layers before the first cut: what a beginning is computed in."""
    return min(cut_layers(config, num_layers), default=num_layers) if config.method != "none" else num_layers
