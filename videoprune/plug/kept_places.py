"""Where in prompts the tokens stand that the LLM computes on: those that are kept, and those behind a known beginning.

Shapes: B rows, S tokens of the prompt, n tokens left.
"""

from __future__ import annotations

import torch
from torch import Tensor

from videoprune.plug.prefix import Prefix


def survivors(keep: Tensor) -> tuple[Tensor, Tensor]:
    """Places of what is kept of prompts keep (B, S), in order at the right end, and which of them are no padding."""
    length = int(keep.sum(1).max())
    places = keep.view(torch.uint8).argsort(dim=1, stable=True)[:, -length:]  # (B, n)
    return places, keep.gather(1, places)


def behind_prefix(prefix: Prefix, visual: Tensor, attended: Tensor) -> tuple[Tensor, Tensor]:
    """What `survivors` gives, of prompts whose beginnings are known: those of the beginning, then the text behind the
    last visual token, each part at its right end. visual, attended: bool (B, S)."""
    last = visual.shape[1] - 1 - visual.flip(1).int().argmax(1)  # (B,), where the beginning ends
    tokens = visual.shape[1] - 1 - int(last.min())
    text = torch.arange(visual.shape[1] - tokens, visual.shape[1], device=visual.device).expand(
        len(visual), -1
    )
    places = torch.cat([prefix.places + starts(attended)[:, None], text], 1)
    return places, torch.cat([prefix.valid, text > last[:, None]], 1)


def grown_prefix(prefix: Prefix, keep: Tensor) -> tuple[Tensor, Tensor]:
    """What `survivors` gives, of one beginning, without padding, whose first tokens are known: those, then what is kept
    behind them. keep: bool (1, S)."""
    behind = torch.arange(keep.shape[1], device=keep.device) > prefix.places[0, -1]
    places = torch.cat([prefix.places, (keep & behind).nonzero()[:, 1][None]], 1)
    return places, torch.ones_like(places, dtype=torch.bool)


def starts(attended: Tensor) -> Tensor:
    """Where each prompt begins behind its padding, which is on the left: (B,). attended: bool (B, S)."""
    return attended.int().argmax(1)
