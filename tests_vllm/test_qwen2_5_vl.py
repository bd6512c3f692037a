"""Qwen2.5-VL pruned inside vLLM says what it says pruned in transformers: windows, and positions that count seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from vllm import SamplingParams

from tests_vllm.oracle import Oracle, request
from tests_vllm.tiny_qwen2_5 import write_tiny
from videoprune.config import preset
from videoprune.types import VideoFrames

PRESET = "balanced-serve"
VIDEO, IMAGE = (f"<|vision_start|><|{kind}_pad|><|vision_end|>" for kind in ("video", "image"))
GREEDY = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny(Path(tmp_path_factory.mktemp("qwen2_5"))))


@pytest.fixture(scope="module")
def llm(load_llm: Any, folder: str) -> Any:
    """Steps of 24 tokens: no clip fits into one."""
    return load_llm(folder, PRESET, max_num_batched_tokens=24, limit_mm_per_prompt={"image": 1, "video": 2})


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def clip(seed: int, frames: int = 8) -> VideoFrames:
    """Of noise: what is alike in flat pictures is chosen among by the last digits, which with random weights show."""
    times = tuple(0.2 + 0.5 * i for i in range(frames))
    return VideoFrames(noise(seed, frames, 96, 96, 3), times, frames / 2, "", "none")


def test_same_tokens_as_in_transformers(llm: Any, folder: str) -> None:
    names = llm.collective_rpc(lambda worker: type(worker.model_runner.get_model()).__name__)
    assert names == ["PrunedQwen2_5VL"]
    oracle = Oracle(folder, preset(PRESET))
    image = Image.fromarray(noise(9, 96, 96, 3).numpy())
    cases = [
        *((f"{VIDEO}What color is the circle?", [clip(seed)], []) for seed in range(6)),
        (f"{VIDEO}Then {VIDEO}What color?", [clip(6), clip(7, 4)], []),
        (f"{VIDEO}{IMAGE}What color?", [clip(0)], [image]),
        (f"{IMAGE}{VIDEO}What color?", [clip(1)], [image]),
        (f"{IMAGE}What color?", [], [image]),
    ]
    tokenizer = llm.get_tokenizer()
    outs = llm.generate([request(tokenizer, *case) for case in cases], GREEDY, use_tqdm=False)
    expected = [oracle.says(*case) for case in cases]
    assert [list(out.outputs[0].token_ids) for out in outs] == expected
    assert len({tuple(e) for e in expected}) > len(cases) // 2
    text = len(tokenizer(cases[0][0])["input_ids"])
    assert len(outs[0].prompt_token_ids) == text - 1 + 36  # of 144
