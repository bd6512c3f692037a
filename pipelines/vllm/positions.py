"""Where the survivors of a clip stand: carried beside their embeddings, added when the LLM computes them.

vLLM lays a prompt out before the encoder has run: then it is known how many tokens of a clip stay, but not which. So
every place of a clip gets the position at which the clip begins, and all text around it, also what is generated later,
the position that it has in the unpruned prompt. How far behind the clip's beginning a survivor stands is written into
columns behind its embedding, and added in the step that computes the token. Whatever part of a clip a step is about
(chunked prefill, what a prefix cache did not have), its rows bring their own positions along.

Shapes: n tokens, N tokens of a step, W width of an embedding; positions have three rows (time, height, width).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_BASE, _DIGITS = 256, 3  # 0..255 is exact in bfloat16, and in float16
COLUMNS = 3 * _DIGITS


def as_columns(positions: Tensor, like: Tensor) -> Tensor:
    """int64 (3, n), 0 and above -> (n, COLUMNS), digits of base 256 in the dtype and on the device of `like`.

    A position as one number would be rounded from 257 on in bfloat16."""
    powers = _powers(positions.device)
    return (positions.T[..., None] // powers % _BASE).flatten(1).to(like)


def from_columns(columns: Tensor) -> Tensor:
    """The inverse of `as_columns`."""
    return (columns.long().unflatten(1, (3, _DIGITS)) * _powers(columns.device)).sum(-1).T


def _powers(device: torch.device) -> Tensor:
    return _BASE ** torch.arange(_DIGITS - 1, -1, -1, device=device)


class Shifts:
    """What is added to the positions of one step's tokens. Its tensors keep their addresses: a CUDA graph that was
    recorded with them reads what is written later. tokens: of a step, at most."""

    def __init__(self, tokens: int) -> None:
        # One more than is used, as vLLM has it: slices are not contiguous, and compiled code counts on that.
        self.shift = torch.zeros(3, tokens + 1, dtype=torch.int64)
        self.sum = torch.zeros_like(self.shift)
        self.written = 0

    def write(self, places: Tensor, shifts: Tensor) -> None:
        """From now on the tokens at places (n,) of a step, ascending, are shifted by (3, n), all others by nothing."""
        self.clear()
        self.written = (
            int(places[-1]) + 1 if len(places) else 0
        )  # places come on the CPU: nothing waits for a GPU
        self.shift[:, places.to(self.shift.device, non_blocking=True)] = shifts

    def clear(self) -> None:
        if self.written:
            self.shift[:, : self.written].zero_()
        self.written = 0

    def added(self, positions: Tensor) -> Tensor:
        """The positions (3, N) of a step with what is added to them."""
        tokens = positions.shape[1]
        return torch.add(positions, self.shift[:, :tokens], out=self.sum[:, :tokens])


def plain_and_shifts(embeddings: list[Tensor], width: int) -> tuple[list[Tensor], Tensor]:
    """Embeddings of a step's images and clips without the columns, and the shifts of all their rows, (3, sum of n).

    An image's rows (n, width) stand where the prompt says; a clip's (n, width + COLUMNS) bring columns along."""
    plain, shifts = [], []
    for rows in embeddings:
        plain.append(rows[:, :width])
        if rows.shape[1] > width:
            shifts.append(from_columns(rows[:, width:]))
        else:
            shifts.append(torch.zeros(3, len(rows), dtype=torch.int64, device=rows.device))
    return plain, torch.cat(shifts, 1)


def three_rows(text: Any) -> None:
    """Make vLLM count the tokens of an LLM (its configuration) in three rows. While they are equal, M-RoPE is RoPE.

    Raises ValueError for scaled positions, which vLLM does not have in three rows."""
    rope = text.rope_parameters
    if rope.get("rope_type", "default") != "default":
        raise ValueError(f"rope_type={rope['rope_type']!r}; allowed with videoprune inside vLLM: 'default'")
    half = (getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads) // 2
    text.rope_parameters = {**rope, "mrope_section": [half - 2 * (half // 3), half // 3, half // 3]}
