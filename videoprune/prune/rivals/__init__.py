"""Rivals of the project's own methods, one signature for all: method(clip, keep, **knobs) -> KeepPlan.

`CLIP_METHODS` has them by name. They decide on a whole clip's tokens at one place of the model, usually the
encoder's end, and keep exactly `keep` of them. `llm.py` has what works inside the LLM.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from videoprune.prune.rivals.aim import aim
from videoprune.prune.rivals.clip import ClipTokens, Need
from videoprune.prune.rivals.controls import frames, pool, random_tokens, uniform
from videoprune.prune.rivals.divprune import divprune
from videoprune.prune.rivals.earlytom import earlytom, earlytom_frames
from videoprune.prune.rivals.evs import evs
from videoprune.prune.rivals.flashvid import flashvid
from videoprune.prune.rivals.holitom import holitom
from videoprune.prune.rivals.prumerge import prumerge_plus
from videoprune.prune.rivals.tome import tome
from videoprune.prune.rivals.vidcom2 import vidcom2
from videoprune.prune.rivals.visionzip import visionzip
from videoprune.types import KeepPlan

__all__ = ["CLIP_METHODS", "ClipFunction", "ClipMethod", "ClipTokens", "earlytom_frames"]


ClipFunction = Callable[..., KeepPlan]  # (clip, keep, *, generator=None, and the method's own knobs)


@dataclass(frozen=True)
class ClipMethod:
    """A method, what it needs of the clip besides x, where it is from, and the names of its own knobs."""

    function: ClipFunction
    needs: frozenset[Need]
    source: str
    knobs: tuple[str, ...] = ()


_NONE: frozenset[Need] = frozenset()
_ATTENTION: frozenset[Need] = frozenset({"attention"})
_BOTH: frozenset[Need] = frozenset({"attention", "keys"})

CLIP_METHODS: dict[str, ClipMethod] = {
    "random": ClipMethod(random_tokens, _NONE, "control: drawn without replacement"),
    "uniform": ClipMethod(uniform, _NONE, "control: a uniform grid in every frame"),
    "frames": ClipMethod(frames, _NONE, "control: fewer frames"),
    "pool": ClipMethod(pool, _NONE, "control: lower resolution by average pooling"),
    "visionzip": ClipMethod(
        visionzip,
        _BOTH,
        "VisionZip: Longer is Better but Not Necessary in Vision Language Models, arXiv 2412.04467",
        ("dominant",),
    ),
    "prumerge_plus": ClipMethod(
        prumerge_plus,
        _BOTH,
        "LLaVA-PruMerge: Adaptive Token Reduction for Efficient Large Multimodal Models, arXiv 2403.15388",
        ("whisker",),
    ),
    "divprune": ClipMethod(
        divprune,
        _NONE,
        "DivPrune: Diversity-based Visual Token Pruning for Large Multimodal Models, arXiv 2503.02175",
        ("scope",),
    ),
    "evs": ClipMethod(
        evs,
        _NONE,
        "Efficient Video Sampling: Pruning Temporally Redundant Tokens for Faster VLM Inference, "
        "arXiv 2510.14624",
    ),
    "vidcom2": ClipMethod(
        vidcom2,
        _NONE,
        "Video Compression Commander: Plug-and-Play Inference Acceleration for Video Large Language Models, "
        "arXiv 2505.14454",
        ("temperature", "kernel"),
    ),
    "holitom": ClipMethod(
        holitom,
        _ATTENTION,
        "HoliTom: Holistic Token Merging for Fast Video Large Language Models, arXiv 2505.21334",
        ("tau", "max_length", "neighbors"),
    ),
    "flashvid": ClipMethod(
        flashvid,
        _ATTENTION,
        "FlashVID: Efficient Video Large Language Models via Training-free Tree-based Spatiotemporal Token "
        "Merging, arXiv 2602.08024",
        ("alpha", "threshold", "segment_threshold", "min_segments", "relevance", "neighbors"),
    ),
    "aim": ClipMethod(
        aim,
        _NONE,
        "AIM: Adaptive Inference of Multi-Modal LLMs via Token Merging and Pruning, arXiv 2412.03248",
    ),
    "tome": ClipMethod(
        tome, frozenset({"keys"}), "Token Merging: Your ViT But Faster, arXiv 2210.09461", ("r",)
    ),
    "earlytom": ClipMethod(
        earlytom,
        _ATTENTION,
        "EarlyTom: Early Token Compression Completes Fast Video Understanding, arXiv 2605.30010 "
        "(a variant: frames merge at the encoder's end)",
        ("frame_share", "tau", "ema", "max_length"),
    ),
}
