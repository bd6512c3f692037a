"""What is asked for at the start: switched on in two ways, off by default, refused before a model loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import vllm
from vllm.engine.arg_utils import EngineArgs
from vllm.multimodal import MULTIMODAL_REGISTRY

from pipelines.vllm import plugin
from tests_vllm.oracle import request
from videoprune.config import PruneConfig, preset
from videoprune.models.loading import model_folder
from videoprune.types import VideoFrames

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


def processed(folder: str, prune: str | None, clip: VideoFrames) -> Any:
    """What vLLM makes of a request about one clip, before any model is loaded."""
    processor = MULTIMODAL_REGISTRY.create_processor(checked(folder, prune).model_config)
    given = request(
        processor.info.get_tokenizer(), "<|vision_start|><|video_pad|><|vision_end|>What?", [clip]
    )
    return processor(
        given["prompt_token_ids"],
        processor.info.parse_mm_data(given["multi_modal_data"]),
        hf_processor_mm_kwargs={},
    )


def test_a_prompt_is_as_much_shorter_as_tokens_leave(qwen: str, asked: Any) -> None:
    clip = asked[0][0]
    stock, ours = (processed(qwen, prune, clip) for prune in (None, "balanced-serve"))
    assert len(stock["prompt_token_ids"]) - len(ours["prompt_token_ids"]) == 144 - 36
    (dense,), (short,) = (made["mm_placeholders"]["video"] for made in (stock, ours))
    assert (short.offset, dense.length - short.length) == (dense.offset, 144 - 36)
    others = processed(qwen, "aggressive-serve", clip)
    hashes = {made["mm_hashes"]["video"][0] for made in (stock, ours, others)}
    assert len(hashes) == 3  # a cache that several servers share keeps them apart
    assert processed(qwen, "balanced-serve", clip)["mm_hashes"] == ours["mm_hashes"]


def test_a_clip_too_small_for_its_merges_fails_as_a_request(qwen: str, asked: Any) -> None:
    """In the encoder the same error would end vLLM."""
    with pytest.raises(ValueError, match="final=2 cannot be reached from 36 tokens"):
        processed(qwen, "evoprune encoder.keep=0.05", asked[0][0])
