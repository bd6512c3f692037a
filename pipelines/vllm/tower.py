"""A vision encoder of vLLM in which tokens merge and leave, by the passes of `videoprune.plug`.

vLLM's blocks compute; between them an `EncoderPass` shortens what goes on, and in place of vLLM's attention, which
knows no bias, the pass attends. Without a pass everything is vLLM's.

Shapes: F frames, N packed patches, n of them in a frame, H heads, d head width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn

from videoprune.config import PruneConfig
from videoprune.plug.encoder_goal import EncoderGoal, Layout
from videoprune.plug.encoder_pass import EncoderPass
from videoprune.plug.settings import Settings

_RUN: ContextVar[EncoderPass | None] = ContextVar("videoprune_vllm_run", default=None)
_KIND = "sdpa"  # torch's own, which has fast kernels on every device


class RunAttention(nn.Module):
    """The attention of one block: `stock`'s, or that of the pass under way. It takes what vLLM's takes."""

    def __init__(self, stock: Any, index: int, *, windowed: bool = False) -> None:
        super().__init__()
        self.stock, self.index, self.windowed = stock, index, windowed

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """query, key, value: (1, N, H, d), or (F, n, H * d) of frames in a batch -> the same shape."""
        run = _RUN.get()
        if run is None:
            out: Tensor = self.stock(query, key, value, *args, **kwargs)
            return out
        heads = [t.reshape(-1, self.stock.num_heads, self.stock.head_size) for t in (query, key, value)]
        q, k, v = (t.transpose(0, 1) for t in heads)  # (H, N, d), frame by frame
        found = run.attend(self.index, q, k, v, self.stock.scale, windowed=self.windowed, kind=_KIND)
        return found.reshape(query.shape)


def take_attention(attentions: Sequence[Any], full: Sequence[int] | None = None) -> None:
    """Put a `RunAttention` into each of an encoder's attention modules, which hold vLLM's as `attn`. full: the blocks
    that attend within whole frames; None: all."""
    for index, attention in enumerate(attentions):
        windowed = full is not None and index not in full
        attention.attn = RunAttention(attention.attn, index, windowed=windowed)


def encoder_pass(prune: PruneConfig, layout: Layout, blocks: int) -> EncoderPass:
    """A pass over the frames of one clip through so many blocks."""
    keep = Settings(prune).keep
    goal = EncoderGoal(blocks, prune.encoder, keep, fusion=prune.fusion, seed=prune.seed)
    return EncoderPass("vision", layout, goal, [len(layout.lengths)])


@contextmanager
def running(run: EncoderPass) -> Iterator[None]:
    """Within, `RunAttention` attends as `run` says."""
    token = _RUN.set(run)
    try:
        yield
    finally:
        _RUN.reset(token)
