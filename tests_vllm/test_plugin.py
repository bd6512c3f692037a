"""What is asked for at the start: switched on in two ways, off by default, refused before a model loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import vllm
from vllm.engine.arg_utils import EngineArgs

from pipelines.vllm import plugin
from videoprune.config import PruneConfig, preset
from videoprune.models.loading import model_folder

STOCK = "Qwen3VLForConditionalGeneration"
OURS = f"Videoprune{STOCK}"


def checked(folder: str, prune: Any = None, **options: Any) -> Any:
    """The configuration as vLLM has it before anything is loaded."""
    more = {} if prune is None else {"additional_config": {"videoprune": {"prune": prune}}}
    return EngineArgs(model=folder, **more, **options).create_engine_config()


def test_off_by_default(qwen: str) -> None:
    found = checked(qwen)
    assert found.model_config.hf_config.architectures == [STOCK]
    assert not hasattr(found.model_config.hf_config, "videoprune_serving")


def test_switched_on_by_words_in_either_place(qwen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "balanced-serve encoder.keep=0.5"
    first = checked(qwen, words)
    monkeypatch.setenv("VIDEOPRUNE_PRUNE", words)
    second = checked(qwen)
    for found in (first, second):
        hf = found.model_config.hf_config
        assert hf.architectures == [OURS]
        assert PruneConfig.from_dict(hf.videoprune_serving) == preset("balanced-serve").replace(
            **{"encoder.keep": 0.5}
        )
        assert found.additional_config == {
            "videoprune": {"prune": words}
        }  # part of what compiled code is kept by
    monkeypatch.delenv("VIDEOPRUNE_PRUNE")
    assert first.compute_hash() != checked(qwen, "balanced-serve").compute_hash()


@pytest.mark.parametrize("prune", ["none", "evoprune encoder.keep=1", {}])
def test_what_keeps_all_is_left_to_vllm(qwen: str, prune: Any) -> None:
    assert checked(qwen, prune).model_config.hf_config.architectures == [STOCK]


@pytest.mark.parametrize(
    ("prune", "options", "said"),
    [
        ("balanced", {}, r"drops tokens between the LLM's layers.*allowed: balanced-serve"),
        ("no-such-preset", {}, "prune='no-such-preset'; allowed: "),
        ("vidcom2", {}, "comes only near its count"),
        ("balanced-serve", {"tensor_parallel_size": 2}, "tensor_parallel_size=2; allowed with videoprune"),
        ("balanced-serve", {"video_pruning_rate": 0.5}, "video_pruning_rate=0.5; allowed with videoprune"),
        ("balanced-serve", {"mm_encoder_tp_mode": "data"}, "mm_encoder_tp_mode='data'; allowed"),
    ],
)
def test_what_cannot_be_done_is_said(qwen: str, prune: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        checked(qwen, prune, **options)


def test_an_unsupported_model_is_named(qwen: str, tmp_path: Path) -> None:
    text = json.loads((model_folder("llava-demo") / "config.json").read_text())["text_config"]
    (tmp_path / "config.json").write_text(json.dumps(text | {"architectures": ["Qwen3ForCausalLM"]}))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((Path(qwen) / name).read_bytes())
    assert checked(str(tmp_path)).model_config.hf_config.architectures == ["Qwen3ForCausalLM"]
    with pytest.raises(ValueError, match=r"for Qwen3ForCausalLM; allowed inside vLLM: .*Qwen3VLForCond"):
        checked(str(tmp_path), "balanced-serve")


def test_another_vllm_is_named(qwen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "__version__", "0.31.2")
    plugin.register()  # nobody asks for anything
    checked(qwen)
    with pytest.raises(ValueError, match=r"vllm 0\.31\.2: videoprune was tested inside vLLM 0\.32\.0"):
        checked(qwen, "balanced-serve")
    monkeypatch.setenv("VIDEOPRUNE_PRUNE", "balanced-serve")
    with pytest.raises(ValueError, match=r"vllm 0\.31\.2: videoprune was tested"):
        plugin.register()
