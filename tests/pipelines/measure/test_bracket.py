"""Settings below and above a retention that a method cannot hit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.measure.bracket import bracketed, measured_retention, nearest, searched
from pipelines.measure.calibration import clips_like
from pipelines.measure.calls import ReadClip
from pipelines.measure.methods import method_config, method_names
from pipelines.measure.plan import Setting
from pipelines.run.stages import ClipItem
from videoprune.config import PruneConfig
from videoprune.engine import Engine
from videoprune.prune.registry import OVER_CLIP, over_clip
from videoprune.prune.rivals.tokens import plan_of_kept


@settings(max_examples=60)
@given(
    step=st.integers(2, 40),
    bias=st.floats(0.5, 1.6),
    wanted=st.sampled_from([0.5, 0.25, 0.1]),
    start=st.sampled_from([0.5, 0.25, 0.1]),
)
def test_the_nearest_steps_on_both_sides_are_found(step, bias, wanted, start):
    """Against all steps there are: counts are multiples of 1 / step, as long as no step is too narrow to be hit."""

    def measure(share):
        return min(1.0, max(1, int(bias * share * step + 1e-9)) / step)

    found = [n.retention for n in nearest(measure, wanted, start)]
    reached = sorted({measure(i / 4096) for i in range(1, 4097)})
    at = [r for r in reached if abs(r - wanted) <= 0.02 * wanted]
    if at:
        assert len(found) == 1
        assert abs(found[0] - wanted) <= 0.02 * wanted
    else:
        below, above = [r for r in reached if r < wanted], [r for r in reached if r > wanted]
        assert found == [*below[-1:], *above[:1]]


def test_what_raises_is_an_end():
    def measure(share):
        if share < 0.2:
            raise ValueError("too little")
        return share + 0.1

    found = nearest(measure, 0.25, 0.5)
    assert [n.retention for n in found] == sorted(n.retention for n in found)
    assert all(n.share >= 0.2 for n in found)
    with pytest.raises(ValueError, match="too little"):
        nearest(measure, 0.25, 0.1)


def test_a_method_that_keeps_too_much_at_any_share_stands_with_the_share_it_was_told():
    (found,) = nearest(lambda share: max(0.3125, share), 0.1, 0.1)
    assert (found.share, found.retention) == (0.1, 0.3125)


@over_clip("made up: counts are multiples of 24", exact=False)
def coarse(clip, keep, *, generator=None):
    kept = torch.zeros(clip.num_tokens, dtype=torch.bool)
    kept[: min(clip.num_tokens, max(24, keep // 24 * 24))] = True
    return plan_of_kept(kept.view(clip.frames, clip.per_frame))


@pytest.fixture(scope="module")
def engine():
    return Engine("llava-demo", PruneConfig(), device="cpu")


@pytest.fixture(scope="module")
def read(engine):
    clips = clips_like(engine, 2)
    return [ReadClip(ClipItem("x", c.samples), c.frames, 0.1) for c in clips]


def test_a_coarse_method_stands_below_and_above_with_its_newline_counted(engine, read, monkeypatch, tmp_path):
    monkeypatch.setitem(OVER_CLIP, "coarse", coarse)
    prune = PruneConfig.from_dict({"encoder": {"method": "coarse", "keep": 0.25}})
    assert searched(prune) == "encoder.keep"
    kept = tmp_path / "shares.json"
    found = bracketed(engine, Setting("coarse", 0.25, prune), read, kept)
    assert [s.label for s in found] == [f"coarse@0.25~{s.share:g}" for s in found]
    counts = [round(measured_retention(engine, s.config, read) * dense(engine, read)) for s in found]
    wanted = 0.25 * dense(engine, read)
    assert counts[1] - counts[0] == 24
    assert counts[0] < wanted < counts[1]
    assert all(c % 24 == 1 for c in counts)  # the newline behind the clip
    before = kept.read_bytes()
    assert (
        bracketed(engine, Setting("coarse", 0.25, prune), (), kept)[0].share is None
    )  # nothing to search on
    monkeypatch.setattr("pipelines.measure.bracket.nearest", None)
    assert bracketed(engine, Setting("coarse", 0.25, prune), read, kept) == found  # as the file says
    assert kept.read_bytes() == before


def dense(engine, read):
    return engine.encode([read[0].frames])[0].trace.dense


def test_what_hits_its_count_stays_as_it_is(engine, read):
    for method in ("divprune", "videoprune", "evoprune", "random"):
        setting = Setting(method, 0.5, method_config(method, 0.5))
        assert bracketed(engine, setting, read) == [setting]


def test_only_inexact_methods_and_schedules_in_the_llm_are_searched():
    for name in method_names():
        if name == "none":
            continue
        prune = method_config(name, 0.25)
        over = OVER_CLIP.get(prune.encoder.method)
        exact = over is None or over.exact
        key = searched(prune)
        if not exact or name == "aim":
            assert key == "encoder.keep"
        elif prune.encoder.method == prune.fusion.method == "none":
            assert key == "llm.keep"
        elif not prune.llm.ratios:
            assert key is None
