"""videoprune: early visual-token pruning for video language models.

`apply` prunes a stock transformers model in place, `remove` undoes it, `trace` tells what a call did; `Engine` answers
questions about videos, with any number of settings on the same weights; `PruneConfig` and `preset` say what to prune.
Names load on first use, so that light programs (the video decoder's child process) need no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "Engine": "videoprune.engine",
    "MultiEncoderConfig": "videoprune.models.multi_encoder_config",
    "MultiEncoderVLM": "videoprune.models.multi_encoder",
    "PruneConfig": "videoprune.config",
    "Sampling": "videoprune.video",
    "apply": "videoprune.plug.apply",
    "preset": "videoprune.config",
    "preset_names": "videoprune.config",
    "read": "videoprune.video",
    "remove": "videoprune.plug.apply",
    "trace": "videoprune.plug.current_pass",
}

__all__ = [
    "Engine",
    "MultiEncoderConfig",
    "MultiEncoderVLM",
    "PruneConfig",
    "Sampling",
    "apply",
    "preset",
    "preset_names",
    "read",
    "remove",
    "trace",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'videoprune' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
