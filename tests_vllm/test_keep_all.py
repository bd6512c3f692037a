"""Our class with nothing to drop says what vLLM's own class says: what it overrides changes nothing by itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from vllm import SamplingParams

from pipelines.vllm.positions import three_rows
from pipelines.vllm.prompts import Prompts
from videoprune.config import PruneConfig
from videoprune.models.loading import model_config
from videoprune.prompts import prompt

LOGPROBS = SamplingParams(temperature=0.0, max_tokens=4, logprobs=3)


@pytest.mark.parametrize("name", ["qwen", "llava"])
def test_keep_all_is_stock(name: str, load_llm: Any, asked: Any, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(name)
    prompts = Prompts(folder, model_config(folder))
    given = [prompts(frames, prompt(s)) for frames, samples in asked[:3] for s in samples]
    stock = load_llm(folder, limit_mm_per_prompt={"image": 0, "video": 1})
    architecture = stock.model_config.hf_config.architectures[0]
    before = stock.generate(given, LOGPROBS, use_tqdm=False)
    overrides = {
        "architectures": [f"Videoprune{architecture}"],
        "videoprune_serving": PruneConfig().as_dict(),
    }
    if name == "llava":  # as the plug-in does, which leaves this preset to vLLM
        text = SimpleNamespace(**stock.model_config.hf_config.text_config.to_dict())
        three_rows(text)
        overrides["text_config"] = {"rope_parameters": text.rope_parameters}
    ours = load_llm(folder, limit_mm_per_prompt={"image": 0, "video": 1}, hf_overrides=overrides)
    names = ours.collective_rpc(lambda worker: type(worker.model_runner.get_model()).__name__)
    assert names[0].startswith("Pruned")
    after = ours.generate(given, LOGPROBS, use_tqdm=False)
    for a, b in zip(before, after, strict=True):
        assert a.outputs[0].token_ids == b.outputs[0].token_ids
        assert len(a.prompt_token_ids) == len(b.prompt_token_ids)
        for x, y in zip(a.outputs[0].logprobs, b.outputs[0].logprobs, strict=True):
            assert {k: v.logprob for k, v in x.items()} == pytest.approx(
                {k: v.logprob for k, v in y.items()}, abs=1e-3
            )
