"""Where in its frame each visual token of a prompt is, for methods that compare frames inside the LLM.

Shapes: B rows, S tokens of the prompt.
"""

from __future__ import annotations

import torch
from torch import Tensor

from videoprune.plug.current_pass import Pass


def places_in_frames(now: Pass, visual: Tensor) -> Tensor:
    """visual: bool (B, S), every visual token of whole frames. -> int64 (B, S), 0 for the first token of each frame and
    so on; -1 at text, and at a token behind a clip's last frame (a newline).

    Raises ValueError where the frames are not known: features from elsewhere, several encoders, anyres images, frames
    of several sizes.
    """
    counts = visual.sum(1).tolist()
    frames = now.frames_of(len(counts))
    shares = [0 if frames is None else round(c * frames / max(1, sum(counts))) for c in counts]
    ends = [0 if f == 0 else c - c % f for c, f in zip(counts, shares, strict=True)]
    whole = all(c - end <= 1 for c, end in zip(counts, ends, strict=True))
    if frames is None or sum(shares) != frames or not whole:
        raise ValueError(
            f"llm.method={now.settings.config.llm.method!r}: {counts} visual tokens, "
            f"{'not known of which frames' if frames is None else f'{frames} frames'}; allowed: clips of one encoder "
            "whose frames have one size"
        )
    rank = visual.long().cumsum(1) - 1  # (B, S)
    each = torch.tensor([e // f if f else 1 for e, f in zip(ends, shares, strict=True)], device=visual.device)
    last = torch.tensor(ends, device=visual.device)
    return (rank % each[:, None]).where(visual & (rank < last[:, None]), -1)
