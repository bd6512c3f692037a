"""Settings that a model or a method cannot do are listed with the reason, and do not end the run."""

from __future__ import annotations

import pytest

from pipelines.measure.calibration import clips_like
from pipelines.measure.usable import usable_settings
from videoprune.config import PruneConfig
from videoprune.engine import Engine


@pytest.mark.parametrize(("frames", "retain", "allowed"), [(4, 0.1, "0.25"), (2, 0.4, "0.5")])
def test_evs_is_refused_below_one_whole_frame(tiny, frames, retain, allowed):
    engine = Engine(str(tiny), PruneConfig(), device="cpu")
    (probe,) = clips_like(engine, 1, frames)
    assert len(probe.frames) == frames
    found, refused = usable_settings(engine, ["none", "evs", "divprune"], [0.6, retain], probe, None)
    assert [(s.method, s.retain) for s in found[1:]] == [
        ("evs", 0.6),
        ("divprune", 0.6),
        ("divprune", retain),
    ]
    assert [r["method"] for r in refused] == [f"evs@{retain:g}"]
    assert refused[0]["reason"].startswith("keep=")
    assert f"at least one whole frame of {frames} (encoder.keep of {allowed} or more)" in refused[0]["reason"]
