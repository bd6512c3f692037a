"""All methods by name, where they act, and what one has to write: docs/add-a-method.md.

A new method is one file and one entry here, or one entry set from outside: `INSIDE["mine"] = Mine()`. Settings,
models and costs look it up here and nowhere else.
"""

from __future__ import annotations

from typing import Literal

from videoprune.config import PruneConfig
from videoprune.prune.controls import RandomPlaces, UniformPlaces
from videoprune.prune.evoprune import EvoPrune
from videoprune.prune.fusion import FUSION, Fusion, FusionTokens
from videoprune.prune.kinds import BlockSize, BlockTokens, ByFrame, Depth, InsideEncoder, OrderedPlan, Product
from videoprune.prune.llm import Adaptive, Aim, EvenTokens, Fixed, RandomTokens
from videoprune.prune.llm_kinds import CutSize, InsideLLM, LayerChoice, LayerTokens, Ranking
from videoprune.prune.meteor import Meteor
from videoprune.prune.rivals.aim import aim
from videoprune.prune.rivals.controls import frames, pool
from videoprune.prune.rivals.divprune import divprune
from videoprune.prune.rivals.dycoke import dycoke
from videoprune.prune.rivals.earlytom import earlytom
from videoprune.prune.rivals.evs import evs
from videoprune.prune.rivals.fastvid import fastvid
from videoprune.prune.rivals.flashvid import flashvid, flashvid_v1
from videoprune.prune.rivals.framefusion import FrameFusion
from videoprune.prune.rivals.holitom import holitom
from videoprune.prune.rivals.holitom_llm import HoliTomMerging
from videoprune.prune.rivals.prumerge import prumerge_plus, prumerge_plus_means
from videoprune.prune.rivals.sparsevlm import SparseVLM
from videoprune.prune.rivals.tokens import ClipSize, ClipTokens, FrameMerging, OverClip, over_clip
from videoprune.prune.rivals.tome import ToMe
from videoprune.prune.rivals.vidcom2 import vidcom2
from videoprune.prune.rivals.visionzip import visionzip

__all__ = [
    "BY_FRAME",
    "FUSION",
    "INSIDE",
    "LLM",
    "OVER_CLIP",
    "BlockSize",
    "BlockTokens",
    "ByFrame",
    "ClipSize",
    "ClipTokens",
    "CutSize",
    "Depth",
    "FrameMerging",
    "Fusion",
    "FusionTokens",
    "InsideEncoder",
    "InsideLLM",
    "LayerChoice",
    "LayerTokens",
    "OrderedPlan",
    "OverClip",
    "Product",
    "Ranking",
    "draws",
    "names",
    "over_clip",
]

# encoder.method: between its blocks; at its end frame by frame; at its end over the whole clip.
INSIDE: dict[str, InsideEncoder] = {"evoprune": EvoPrune(), "meteor": Meteor(), "tome": ToMe()}
BY_FRAME: dict[str, ByFrame] = {"random": RandomPlaces(), "uniform": UniformPlaces()}
OVER_CLIP: dict[str, OverClip] = {
    "frames": frames,
    "pool": pool,
    "visionzip": visionzip,
    "prumerge_plus": prumerge_plus,
    "prumerge_plus_means": prumerge_plus_means,
    "divprune": divprune,
    "evs": evs,
    "vidcom2": vidcom2,
    "holitom": holitom,
    "flashvid": flashvid,
    "flashvid_v1": flashvid_v1,
    "fastvid": fastvid,
    "aim": aim,
    "earlytom": earlytom,
    "dycoke": dycoke,
}
# llm.method. That of fusion.method is `fusion.FUSION`.
LLM: dict[str, InsideLLM] = {
    "adaptive": Adaptive(),
    "fixed": Fixed(),
    "aim": Aim(),
    "holitom": HoliTomMerging(),
    "framefusion": FrameFusion(),
    "sparsevlm": SparseVLM(),
    "random": RandomTokens(),
    "uniform": EvenTokens(),
}


def names(stage: Literal["encoder", "fusion", "llm"]) -> tuple[str, ...]:
    """What `<stage>.method` may be, besides `none`."""
    if stage == "encoder":
        return (*INSIDE, *BY_FRAME, *OVER_CLIP)
    return tuple(FUSION if stage == "fusion" else LLM)


def draws(config: PruneConfig) -> bool:
    """Whether what stays of a clip before the LLM is drawn at random."""
    encoder, fusion = config.encoder.method, config.fusion.method
    by_chance = [m.draws for m in (BY_FRAME.get(encoder), OVER_CLIP.get(encoder), FUSION.get(fusion)) if m]
    return any(by_chance)
