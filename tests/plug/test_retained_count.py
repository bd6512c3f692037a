"""The count that is promised before any pixel is the count that a pruned model keeps."""

from __future__ import annotations

import pytest
import torch

from tests.plug.stock import clips, inputs, stock_model
from videoprune.config import PruneConfig, preset, preset_names
from videoprune.plug.apply import apply
from videoprune.plug.current_pass import trace
from videoprune.prune.counts import retained_count
from videoprune.prune.registry import INSIDE, OVER_CLIP

# Frames of a clip of tests.plug.stock, units of each (behind the pooling), and tokens of no frame.
SHAPES = {"llava_onevision": (4, 16, 1), "qwen2_5_vl": (4, 12, 0), "qwen3_vl": (4, 12, 0)}
EVO = {"method": "evoprune", "keep": 0.55}
SETTINGS = {
    "rounding of each frame": {"encoder": EVO},
    "fusing less than rounding": {
        "encoder": {**EVO, "keep": 0.54},
        "fusion": {"method": "separate", "keep": 0.99},
    },
    "a control, then the clip": {
        "encoder": {"method": "uniform", "keep": 0.4},
        "fusion": {"method": "random", "keep": 0.5},
    },
    "novelty": {"encoder": {**EVO, "frames": "novelty"}},
    "over time, then the clip": {
        "encoder": {**EVO, "temporal": 0.5, "still": 0.2},
        "fusion": {"method": "cooperative", "keep": 0.3},
    },
    "over the clip, then the clip": {
        "encoder": {"method": "divprune", "keep": 0.4},
        "fusion": {"method": "uniform", "keep": 0.5},
    },
    "one token a frame, or two": {
        "encoder": {**EVO, "keep": 0.05, "schedule": "mean", "critical_ratio": 0.0}
    },
    "fusion alone": {"fusion": {"method": "cooperative", "keep": 0.37}},
} | {
    name: config.as_dict()
    for name in preset_names()
    if (config := preset(name)).llm.method == "none"
    and getattr(OVER_CLIP.get(config.encoder.method), "exact", True)
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("kind", SHAPES)
def test_as_many_are_kept_as_were_promised(kind: str, name: str) -> None:
    prune = PruneConfig.from_dict(SETTINGS[name])
    frames, units, extra = SHAPES[kind]
    inside = INSIDE.get(prune.encoder.method)
    pools = kind == "llava_onevision"
    if pools and inside is not None and not inside.merges:
        pytest.skip("its pooling needs a value at every place")
    model = apply(stock_model(kind), prune)
    with torch.no_grad(), trace() as traces:
        model(**inputs(kind, clips(kind, 1, frames), [[7, 8, 9]]))
    assert traces[0].fused == retained_count(prune, frames, units, pools=pools) + extra
    if prune != PruneConfig():
        assert traces[0].fused < traces[0].dense


def test_what_shows_only_in_the_clip_is_refused() -> None:
    inexact = [name for name, method in OVER_CLIP.items() if not method.exact]
    assert inexact
    for name in inexact:
        prune = PruneConfig.from_dict({"encoder": {"method": name, "keep": 0.5}})
        with pytest.raises(ValueError, match=f"encoder.method='{name}' comes only near"):
            retained_count(prune, 4, 12)
        assert retained_count(prune.replace(**{"encoder.keep": 1.0}), 4, 12) == 48
