"""What is asked of vLLM: read from both places, checked before anything is loaded, refused in a sentence."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.vllm.settings import check_engine, serving_settings, wanted
from videoprune.config import PruneConfig, preset, preset_names
from videoprune.models.loading import model_config

QWEN, LLAVA = (model_config(name) for name in ("qwen-demo", "llava-demo"))


def test_nothing_is_asked_for_by_default() -> None:
    assert wanted({}, {}) is None
    assert wanted({"another plug-in": {}}, {"VIDEOPRUNE_PRUNE": ""}) is None


def test_both_places_are_read() -> None:
    words = "balanced-serve encoder.keep=0.5"
    assert wanted({}, {"VIDEOPRUNE_PRUNE": words}) == words
    assert wanted({"videoprune": {"prune": words}}, {}) == words
    assert wanted({"videoprune": {"prune": words}}, {"VIDEOPRUNE_PRUNE": words}) == words
    with pytest.raises(ValueError, match=r"VIDEOPRUNE_PRUNE='none' with .*allowed: one of them"):
        wanted({"videoprune": {"prune": words}}, {"VIDEOPRUNE_PRUNE": "none"})


@pytest.mark.parametrize("given", ["balanced-serve", {}, {"prune": 3}, {"prune": "none", "keep": 0.5}])
def test_another_shape_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match=r"additional_config\['videoprune'\]=.*allowed: "):
        wanted({"videoprune": given}, {})


def test_words_are_a_preset_and_settings_behind_it() -> None:
    found = serving_settings("balanced-serve encoder.keep=0.5 seed=3", QWEN)
    assert found.config == preset("balanced-serve").replace(**{"encoder.keep": 0.5, "seed": 3})
    assert found.drops
    assert serving_settings(found.config.as_dict(), QWEN) == found
    assert not serving_settings("none", QWEN).drops


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("nothing-like-it", "prune='nothing-like-it'; allowed: "),
        ("", "prune=''; allowed: "),
        ("balanced-serve encoder.kep=0.5", "encoder.kep: unknown key; allowed: "),
        ("balanced-serve encoder.keep=2", "encoder.keep=2.*allowed: a number in"),
        (
            "balanced",
            "llm.method='adaptive' drops tokens between the LLM's layers.*allowed: balanced-serve, ",
        ),
        ("fastv", "llm.method='fixed' drops .*allowed: llm.method=none, or .*balanced-serve"),
        ("vidcom2", "encoder.method='vidcom2' comes only near its count"),
        ({"llm": {"method": "fixed", "keep": 0.5}}, "llm.method='fixed' drops"),
    ],
)
def test_what_cannot_be_done_is_said(asked: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        serving_settings(asked, QWEN)


def test_what_the_family_cannot_do_is_said() -> None:
    serving_settings({"encoder": {"method": "meteor", "keep": 0.5}}, QWEN)
    with pytest.raises(ValueError, match=r"encoder\.method='meteor'; allowed for llava_onevision"):
        serving_settings({"encoder": {"method": "meteor", "keep": 0.5}}, LLAVA)


@pytest.mark.parametrize("name", [n for n in preset_names() if n.endswith("-serve")])
def test_serving_presets_keep_what_theirs_keep_on_average(name: str) -> None:
    serving, other = preset(name), preset(name.removesuffix("-serve"))
    assert serving.llm.method == "none"
    assert serving.encoder == other.encoder
    kept = serving.encoder.keep * serving.fusion.keep
    assert kept == pytest.approx(other.encoder.keep * other.fusion.keep * other.llm.keep, abs=1e-4)
    assert serving_settings(name, QWEN).config == serving_settings(name, LLAVA).config == serving


def engine(**changes: Any) -> Any:
    """As much of a VllmConfig as is looked at."""
    fields = {
        "pipeline_parallel_size": 1,
        "tensor_parallel_size": 1,
        "enable_dbo": False,
        "speculative_config": None,
        "compile_mm_encoder": False,
        "mm_encoder_tp_mode": "weights",
        "mm_encoder_attn_dtype": None,
        "video_pruning_rate": None,
    } | changes
    one = SimpleNamespace(**fields)
    return SimpleNamespace(
        parallel_config=one,
        compilation_config=one,
        model_config=SimpleNamespace(multimodal_config=one),
        speculative_config=one.speculative_config,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pipeline_parallel_size", 2),
        ("tensor_parallel_size", 4),
        ("prefill_context_parallel_size", 2),
        ("enable_dbo", True),
        ("speculative_config", object()),
        ("compile_mm_encoder", True),
        ("mm_encoder_tp_mode", "data"),
        ("mm_encoder_attn_dtype", "fp8"),
        ("video_pruning_rate", 0.5),
    ],
)
def test_settings_of_vllm_that_pruning_was_not_made_for_are_named(name: str, value: Any) -> None:
    check_engine(engine())
    check_engine(engine(video_pruning_rate=0.0))
    with pytest.raises(ValueError, match=f"{name}=.*allowed with videoprune inside vLLM: "):
        check_engine(engine(**{name: value}))


def test_a_config_survives_the_way_to_other_processes() -> None:
    prune = preset("balanced-serve")
    assert PruneConfig.from_dict(prune.as_dict()) == prune
