"""Qwen3-VL pruned inside vLLM says what it says pruned in transformers, whatever stands beside a clip and however its
prompt is computed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image
from vllm import SamplingParams

from pipelines.vllm.prompts import Prompts, clip_trace
from tests_vllm.oracle import Oracle, both_say, request
from videoprune.config import preset
from videoprune.models.loading import model_config
from videoprune.prompts import prompt

PRESET = "balanced-serve"
VIDEO, IMAGE = (f"<|vision_start|><|{kind}_pad|><|vision_end|>" for kind in ("video", "image"))
GREEDY = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)


@pytest.fixture(scope="module")
def llm(load_llm: Any, qwen: str) -> Any:
    """Steps of 32 tokens: no clip fits into one."""
    return load_llm(
        qwen,
        PRESET,
        max_num_batched_tokens=32,
        limit_mm_per_prompt={"image": 2, "video": 2},
        enable_mm_embeds=True,
        block_size=32,  # of what the prefix cache holds
    )


@pytest.fixture(scope="module")
def oracle(qwen: str) -> Oracle:
    return Oracle(qwen, preset(PRESET))


def picture(seed: int) -> Image.Image:
    generator = torch.Generator().manual_seed(seed)
    return Image.fromarray(torch.randint(256, (96, 96, 3), generator=generator, dtype=torch.uint8).numpy())


def says(llm: Any, *prompts: Any) -> list[list[int]]:
    return [list(out.outputs[0].token_ids) for out in llm.generate(list(prompts), GREEDY, use_tqdm=False)]


def test_the_class_is_ours_and_counts_are_those_promised(llm: Any, qwen: str, asked: Any) -> None:
    names = llm.collective_rpc(lambda worker: type(worker.model_runner.get_model()).__name__)
    assert names == ["PrunedQwen3VL"]
    frames, samples = asked[0]
    config = model_config(qwen)
    made = llm.generate([Prompts(qwen, config)(frames, prompt(samples[0]))], GREEDY, use_tqdm=False)[0]
    trace = clip_trace(config, preset(PRESET), len(frames), (96, 96))
    between = len(made.prompt_token_ids) - len(llm.get_tokenizer()(prompt(samples[0]))["input_ids"])
    stamps = 4 * (len(llm.get_tokenizer()("<0.0 seconds>")["input_ids"]) + 2)
    assert (trace.dense, trace.fused) == (144, 36)
    assert between == stamps + trace.fused


def test_same_texts_as_the_engine_of_transformers(llm: Any, qwen: str, asked: Any) -> None:
    outs, theirs = both_say(llm, qwen, "qwen-demo", PRESET, asked)
    found = [out.outputs[0].text.strip() for out in outs]
    assert found == theirs
    assert len(set(found)) > 3  # they are answers to different questions


def test_images_and_clips_in_any_order(llm: Any, oracle: Oracle, asked: Any) -> None:
    (first, _), (second, _) = asked[:2]
    cases = [
        (f"{VIDEO}{IMAGE}What color?", [first], [picture(0)]),
        (f"{IMAGE}{VIDEO}What color?", [first], [picture(0)]),
        (f"{VIDEO}Then {VIDEO}What color?", [first, second], []),
        (f"Look: {IMAGE}{VIDEO}and{VIDEO}{IMAGE}What?", [second, first], [picture(1), picture(2)]),
        (f"{IMAGE}What color?", [], [picture(3)]),
        ("What color is the circle?", [], []),
    ]
    found = says(llm, *(request(llm.get_tokenizer(), *case) for case in cases))
    assert found == [oracle.says(*case) for case in cases]


def test_a_second_question_finds_the_clip_in_the_prefix_cache(llm: Any, oracle: Oracle, asked: Any) -> None:
    clip = asked[3][0]
    texts = [
        f"{VIDEO}{question}" for question in ("What color is the square?", "How many objects are there?")
    ]
    for number, text in enumerate(texts):
        (out,) = llm.generate([request(llm.get_tokenizer(), text, [clip])], GREEDY, use_tqdm=False)
        assert list(out.outputs[0].token_ids) == oracle.says(text, [clip])
        assert (out.num_cached_tokens > 16) == bool(number)  # the first one saw nothing of this clip


def test_a_request_that_is_aborted_leaves_others_alone(llm: Any, oracle: Oracle, asked: Any) -> None:
    clips = [asked[i][0] for i in (4, 5)]
    text = f"{VIDEO}What shape is red?"
    ids = llm.enqueue([request(llm.get_tokenizer(), text, [c]) for c in clips], GREEDY, use_tqdm=False)
    engine = llm.llm_engine
    engine.step()
    engine.abort_request([ids[0]], internal=True)
    (left,) = llm.wait_for_completion(use_tqdm=False)
    assert list(left.outputs[0].token_ids) == oracle.says(text, [clips[1]])
    assert not engine.has_unfinished_requests()
    again = request(llm.get_tokenizer(), text, [clips[0]])  # half of its clip was computed
    assert says(llm, again) == [oracle.says(text, [clips[0]])]


def test_videos_that_were_encoded_elsewhere_are_refused(llm: Any) -> None:
    made = {"video_embeds": torch.zeros(144, 320), "video_grid_thw": torch.tensor([[4, 12, 12]])}
    made["timestamps"] = [[0.0, 0.5, 1.0, 1.5]]
    ids = llm.get_tokenizer()(f"{VIDEO}What?")["input_ids"]
    with pytest.raises(ValueError, match="video_embeds; allowed with videoprune inside vLLM"):
        llm.generate([{"prompt_token_ids": ids, "multi_modal_data": {"video": made}}], GREEDY)
