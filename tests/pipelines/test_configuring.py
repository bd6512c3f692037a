from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.configuring import load_prune
from videoprune.config import preset, preset_names


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_without_overrides_is_the_preset(name: str) -> None:
    assert load_prune(name) == preset(name)


def test_dotted_words_change_single_settings_and_the_last_wins() -> None:
    words = [
        "llm.lambda_=50",
        "encoder.keep=0.3",
        "encoder.keep=0.4",
        "llm.ratios=[0.9, 0.5, 0.25]",
        "seed=7",
    ]
    found = load_prune("balanced", words)
    changes = {"llm.lambda_": 50.0, "encoder.keep": 0.4, "llm.ratios": (0.9, 0.5, 0.25), "seed": 7}
    assert found == preset("balanced").replace(**changes)
    assert load_prune("balanced", ["llm.lambda_=null"]) == preset("balanced")
    assert (
        load_prune("evoprune", ["encoder.proportional_attention=false"]).encoder.proportional_attention
        is False
    )


def test_a_yaml_file_is_as_good_as_a_preset(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("encoder: {method: meteor, keep: 0.7}\n")
    assert load_prune(str(path), ["seed=2"]) == preset("none").replace(
        **{"encoder.method": "meteor", "encoder.keep": 0.7, "seed": 2}
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["llm.lamda=50"], "llm.lamda: unknown key"),
        (["lm.keep=0.5"], "lm: unknown key"),
        (["llm.keep=1.5"], r"llm.keep=1.5; allowed: a number in \(0.0, 1.0\]"),
        (["llm.method=magic"], "llm.method='magic'; allowed: none, adaptive"),
        (["llm.keep=lots"], "llm.keep='lots'"),
        (["encoder=3"], "encoder.=3; allowed: a mapping"),
        (["llm.keep"], "override 'llm.keep'"),
        (["=5"], "override '=5'"),
        (["llm..keep=0.5"], "override"),
        (["llm.ratios=[0.5"], "llm.ratios"),
        (["seed=${missing}"], "missing"),
    ],
)
def test_impossible_words_are_refused_by_name(words: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        load_prune("balanced", words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["fast", "nowhere.yaml", "", "/"])
def test_an_unknown_preset_names_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match="balanced"):
        load_prune(name)


@pytest.mark.parametrize(
    ("text", "said"),
    [("- 1\n- 2\n", "odd.yaml holds no mapping"), ("a: [1\n", "odd.yaml"), ("words", "words: unknown key")],
)
def test_a_yaml_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        load_prune(str(path))
