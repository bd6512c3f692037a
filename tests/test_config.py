"""Configurations refuse what they do not know, by name."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import videoprune
from videoprune.config import EncoderPrune, FusionPrune, LLMPrune, PruneConfig, preset, preset_names


def test_the_promised_presets_are_there() -> None:
    assert {"aggressive", "balanced", "evoprune", "light", "meteor", "none"} <= set(preset_names())


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads(name: str) -> None:
    assert PruneConfig.from_dict(preset(name).as_dict()) == preset(name)


def test_none_prunes_nothing() -> None:
    assert preset("none") == PruneConfig()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"encoder": {"kep": 0.5}}, "encoder.kep: unknown key; allowed: .*encoder.keep"),
        ({"encodr": {}}, "encodr: unknown key; allowed: encoder, fusion, llm, seed"),
        ({"encoder": {"method": "best"}}, "encoder.method='best'; allowed: none, evoprune, meteor"),
        ({"encoder": {"keep": 0}}, r"encoder.keep=0.0; allowed: a number in \(0.0, 1.0\]"),
        ({"encoder": {"keep": "half"}}, "encoder.keep='half'; allowed: a number"),
        ({"encoder": {"neighbors": 2.5}}, "encoder.neighbors=2.5; allowed: int"),
        ({"encoder": {"proportional_attention": 1}}, "encoder.proportional_attention=1; allowed: bool"),
        ({"encoder": 3}, "encoder.*=3; allowed: a mapping"),
        ({"encoder": {"method": None}}, "encoder.method=None; allowed: str"),
        ({"encoder": {"method": "cooperative"}}, "encoder.method='cooperative'; allowed: none, evoprune"),
        ({"fusion": {"method": "mine"}}, "fusion.method='mine'; allowed: none, cooperative, separate"),
        ({"llm": {"method": "fastv"}}, "llm.method='fastv'; allowed: none, adaptive, fixed, aim"),
        (
            {"encoder": {"method": "meteor", "temporal": 0.5}},
            "encoder.temporal=0.5 with encoder.method='meteor'; allowed: evoprune",
        ),
        ({"fusion": {"keep": 1.5}}, r"fusion.keep=1.5; allowed"),
        ({"llm": {"layers": [0.5, 0.2]}}, "llm.layers=.*ascending"),
        ({"llm": {"layers": [0.5], "ratios": [0.5, 0.2]}}, "llm.ratios=.*one for each"),
        ({"llm": {"ratios": [0.2, 0.3, 0.4]}}, "llm.ratios=.*do not grow"),
        ({"llm": {"ratios": [0.2, 0.1, -0.1]}}, r"llm.ratios=-0.1; allowed: a number in \[0.0, 1.0\]"),
        ({"llm": {"attention": "both"}}, "llm.attention='both'; allowed: next, previous"),
        ({"llm": {"lambda_": -1}}, "llm.lambda_=-1.0; allowed: 0 or more"),
        ({"llm": {"layers": 3}}, "llm.layers=3; allowed: a list"),
    ],
)
def test_mistakes_are_named(data: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PruneConfig.from_dict(data)


@pytest.mark.parametrize(
    ("part", "stage"), [(EncoderPrune, "encoder"), (FusionPrune, "fusion"), (LLMPrune, "llm")]
)
def test_a_part_made_directly_is_checked_too(part: type, stage: str) -> None:
    with pytest.raises(ValueError, match=f"{stage}.method='best'; allowed: none, "):
        part(method="best")


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match="preset='fast'; allowed: aggressive, aggressive-serve, aim, balanced"
    ):
        preset("fast")


def test_replace_changes_one_field_and_checks_it() -> None:
    config = preset("balanced").replace(**{"llm.lambda_": 50, "seed": 4})
    assert (config.llm.lambda_, config.seed) == (50.0, 4)
    assert config.encoder == preset("balanced").encoder
    with pytest.raises(ValueError, match=r"llm.lamda: unknown key"):
        config.replace(**{"llm.lamda": 1})
    with pytest.raises(ValueError, match=r"seed.x: unknown key"):
        config.replace(**{"seed.x": 1})


@settings(max_examples=40)
@given(st.floats(0.01, 1), st.floats(0, 500), st.integers(1, 64))
def test_the_digest_names_the_settings(keep: float, lambda_: float, heads: int) -> None:
    config = PruneConfig(EncoderPrune(keep=keep), llm=LLMPrune(lambda_=lambda_, top_heads=heads))
    again = PruneConfig.from_dict(config.as_dict())
    assert again == config
    assert again.digest() == config.digest()
    assert config.replace(**{"llm.top_heads": heads + 1}).digest() != config.digest()


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, videoprune; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_public_names_exist_and_others_do_not() -> None:
    for name in videoprune.__all__:
        assert getattr(videoprune, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'aply'"):
        _ = videoprune.aply


def test_a_number_of_merges_needs_a_schedule_that_has_places() -> None:
    with pytest.raises(ValueError, match=r"encoder.merges=3 .*constant.*allowed: 0"):
        EncoderPrune(method="evoprune", keep=0.5, schedule="constant", merges=3)
    with pytest.raises(ValueError, match=r"encoder.merges=-1"):
        EncoderPrune(merges=-1)
