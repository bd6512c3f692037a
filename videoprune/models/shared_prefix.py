"""Beginnings of prompts that several questions share: which rows they are for, and whether they are at hand.

Shapes: B rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from videoprune.config import LLMPrune
from videoprune.models.inputs import TEXT
from videoprune.plug.prefix import Prefix
from videoprune.types import Encoded


def prefix_of_rows(
    encoded: Sequence[Encoded],
    llm: LLMPrune,
    device: torch.device,
    compute: Callable[[Sequence[Encoded]], Prefix | None],
) -> Prefix | None:
    """A row for each question about a clip: held by the clips where `prefill` made them with these settings, else
    computed where some clip is asked twice, else None.

    encoded: of each row. compute: makes those of some clips; None where the first layer is cut already.
    """
    clips = list({id(clip): clip for clip in encoded}.values())
    held = [c.prefix for c in clips if c.prefix is not None and c.prefix.made_with == llm]
    begun: Prefix | None = None
    if len(held) == len(clips):
        begun = Prefix.joined(held)
    elif len(clips) < len(encoded):
        begun = compute(clips)
    if begun is None:
        return None
    number = {id(clip): i for i, clip in enumerate(clips)}
    return begun.rows(torch.tensor([number[id(clip)] for clip in encoded], device=device))


def alike_until(end: int, inputs: dict[str, Tensor], others: dict[str, Tensor]) -> bool:
    """Whether the first `end` places of two prompts, (1, S) and as the model takes them, are the same, and stand at the
    same positions."""
    for name, value in inputs.items():
        if name in TEXT:
            alike = torch.equal(value[:, :end], others[name][:, :end])
        else:  # what moves the positions of all frames, such as the seconds between them
            alike = name.endswith("grid_thw") or torch.equal(value, others[name])
        if not alike:
            return False
    return True


def prefilled(encoded: Sequence[Encoded], begun: Prefix | None) -> list[Encoded]:
    """The clips, each with its own of the beginnings `begun`; as they are where there are none."""
    if begun is None:
        return list(encoded)
    return [replace(clip, prefix=begun.one(i)) for i, clip in enumerate(encoded)]
