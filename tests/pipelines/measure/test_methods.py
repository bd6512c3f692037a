"""Methods at a wanted retention: the shares multiply to it, and what cannot be reached is refused."""

from __future__ import annotations

import math

import pytest

from pipelines.measure.methods import at_random, method_config, method_names
from videoprune.config import PruneConfig, preset, preset_names
from videoprune.prune.counts import cut_layers, cut_ratios


def product(config: PruneConfig) -> float:
    return math.prod(p.keep for p in (config.encoder, config.fusion, config.llm) if p.method != "none")


@pytest.mark.parametrize("name", [n for n in method_names() if n != "none"])
@pytest.mark.parametrize("retain", [0.5, 0.37, 0.25, 0.1])
def test_shares_multiply_to_the_retention(name, retain):
    config = method_config(name, retain)
    assert abs(product(config) - retain) < 0.005
    if name in ("aim", "earlytom", "holitom") or name.startswith("flashvid"):
        assert config.llm == preset(name).llm
    else:
        assert config.llm.ratios == ()


def test_ours_are_the_presets_where_they_were_tuned():
    for name, retain in (("light", 0.5), ("balanced", 0.25), ("aggressive", 0.1)):
        assert method_config("videoprune", retain) == preset(name) == method_config("balanced", retain)
    between = method_config("videoprune", 0.37)
    assert between not in [preset(n) for n in preset_names()]
    assert between.encoder.keep > between.encoder.keep * between.fusion.keep > 0.37


def test_none_keeps_all_and_every_name_is_known():
    assert method_config("none", 0.3) == PruneConfig()
    assert {"videoprune", "evoprune", "meteor", "divprune", "fastv", "frames"} <= set(method_names())


def test_the_matched_control_is_random_in_the_same_stages():
    ours = preset("balanced")
    control = at_random(ours)
    assert [control.encoder.method, control.fusion.method, control.llm.method] == ["random"] * 3
    assert product(control) == product(ours)
    assert at_random(preset("evoprune")).fusion.method == "none"


def test_flashvid_hands_the_llm_its_authors_expansion():
    assert method_config("flashvid", 0.2).encoder.keep == pytest.approx(1.25 * 0.2)
    assert method_config("flashvid", 0.25) == preset("flashvid")


@pytest.mark.parametrize(
    ("name", "layers"),
    [("flashvid", 28), ("flashvid_qwen2_5", 28), ("flashvid_qwen3", 36), ("holitom", 28), ("sparsevlm", 32)],
)
def test_the_authors_schedules_average_what_is_reckoned(name, layers):
    llm = preset(name).llm
    cuts, ratios = cut_layers(llm, layers), cut_ratios(llm, layers)
    wanted = {"flashvid_qwen3": (28,), "holitom": (18,), "sparsevlm": (3, 7, 16)}.get(name, (20,))
    assert cuts == wanted
    ends = (*cuts, layers)
    kept = cuts[0] + sum(r * (b - a) for r, a, b in zip(ratios, cuts, ends[1:], strict=True))
    assert kept / layers == pytest.approx(llm.keep, abs=1e-4)


@pytest.mark.parametrize("layers", [6, 8, 24, 28, 32])
def test_aims_schedule_keeps_what_is_reckoned_at_any_depth(layers):
    llm = preset("aim").llm
    cuts, ratios = cut_layers(llm, layers), cut_ratios(llm, layers)
    shares = [
        next((r for c, r in reversed([*zip(cuts, ratios, strict=True)]) if c <= i), 1.0)
        for i in range(layers)
    ]
    assert sum(shares) / layers == pytest.approx(llm.keep, abs=0.02)
    assert shares[-1] == 0


def test_what_aims_schedule_cannot_reach_is_refused():
    with pytest.raises(ValueError, match=r"retain=0\.7; allowed for aim: at most 0\.6607"):
        method_config("aim", 0.7)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="method='fast'; allowed: none, videoprune"):
        method_config("fast", 0.5)
    with pytest.raises(ValueError, match=r"retain=1\.5; allowed: a number between 0 and 1"):
        method_config("random", 1.5)
