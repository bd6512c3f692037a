"""LLaVA-OneVision pruned inside vLLM says what it says pruned in transformers: survivors keep their positions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image
from vllm import SamplingParams

from pipelines.vllm.prompts import clip_trace
from tests_vllm.oracle import Oracle, both_say, request
from videoprune.config import preset
from videoprune.models.loading import model_config
from videoprune.prompts import prompt

PRESET = "balanced-serve"
VIDEO, IMAGE = "<|video_pad|>", "<|image_pad|>"
GREEDY = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)


@pytest.fixture(scope="module")
def llm(load_llm: Any, llava: str) -> Any:
    """Steps of 24 tokens: no clip fits into one."""
    return load_llm(
        llava,
        PRESET,
        max_num_batched_tokens=24,
        limit_mm_per_prompt={"image": 1, "video": 2},
        block_size=32,  # of what the prefix cache holds
    )


def test_same_texts_as_the_engine_of_transformers(llm: Any, llava: str, asked: Any) -> None:
    names = llm.collective_rpc(lambda worker: type(worker.model_runner.get_model()).__name__)
    assert names == ["PrunedLlavaOnevision"]
    outs, theirs = both_say(llm, llava, "llava-demo", PRESET, asked)
    assert [out.outputs[0].text.strip() for out in outs] == theirs
    assert len(set(theirs)) > 3
    question = len(llm.get_tokenizer()(prompt(asked[0][1][0]))["input_ids"])
    fused = clip_trace(model_config(llava), preset(PRESET), 8, (96, 96)).fused
    assert len(outs[0].prompt_token_ids) == question + fused == question + 33


def test_clips_and_images_beside_each_other_and_again(llm: Any, llava: str, asked: Any) -> None:
    oracle = Oracle(llava, preset(PRESET))
    (first, _), (second, _) = asked[:2]
    # As high and wide as those that vLLM makes room for.
    noise = torch.randint(256, (94, 115, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    image = Image.fromarray(noise.numpy())
    cases = [
        (f"{VIDEO}Then {VIDEO}What color?", [first, second], []),
        (f"{VIDEO}{IMAGE}What color?", [first], [image]),
        (f"{IMAGE}{VIDEO}What color?", [second], [image]),
        (f"{VIDEO}What shape is red?", [first], []),
        (f"{VIDEO}How many?", [first], []),
        ("What color is the circle?", [], []),
    ]
    for case in cases:  # one by one, so that the last clips are found in caches
        (out,) = llm.generate([request(llm.get_tokenizer(), *case)], GREEDY, use_tqdm=False)
        assert list(out.outputs[0].token_ids) == oracle.says(*case), case[0]
        if case[0].startswith(f"{VIDEO}How"):
            assert out.num_cached_tokens > 0
