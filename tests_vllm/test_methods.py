"""Every preset whose counts are known beforehand, inside vLLM as in transformers. One model is loaded for all: what the
plug-in wrote is exchanged between requests."""

from __future__ import annotations

from typing import Any

import pytest
from vllm import SamplingParams

from pipelines.vllm.prompts import Prompts
from pipelines.vllm.settings import ATTRIBUTE, serving_settings
from videoprune.config import PruneConfig, preset, preset_names
from videoprune.engine import Engine
from videoprune.models.loading import model_config
from videoprune.prompts import prompt

OVER_TIME = {"encoder": {"method": "evoprune", "keep": 0.4, "temporal": 0.5}}
NOVELTY = {"encoder": {"method": "evoprune", "keep": 0.4, "frames": "novelty"}}
MORE = {
    "over time": OVER_TIME,
    "novelty": NOVELTY,
    "meteor inside": {"encoder": {"method": "meteor", "keep": 0.3}},
}


def possible(config: Any) -> dict[str, PruneConfig]:
    """By name, what can be served for a model."""
    found = {}
    for name, asked in {**{n: preset(n).as_dict() for n in preset_names()}, **MORE}.items():
        try:
            settings = serving_settings(asked, config)
        except ValueError:
            continue
        if settings.drops:
            found[name] = settings.config
    return found


@pytest.mark.parametrize("name", ["qwen", "llava"])
def test_as_in_transformers(name: str, load_llm: Any, asked: Any, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(name)
    config, engine = model_config(folder), Engine(f"{name}-demo", PruneConfig(), device="cpu")
    llm = load_llm(folder, "balanced-serve", limit_mm_per_prompt={"image": 0, "video": 1})
    prompts, sampling = Prompts(folder, config), SamplingParams(temperature=0.0, max_tokens=4)
    methods = possible(config)
    assert {"divprune", "evs", "visionzip", "random", "uniform", "evoprune", "tome", "novelty"} <= set(
        methods
    )
    differ = {}
    for method, prune in methods.items():
        setattr(llm.model_config.hf_config, ATTRIBUTE, prune.as_dict())
        llm.collective_rpc(_prune_by, args=(prune,))
        clips = [asked[i][0] for i in range(4)]
        samples = [asked[i][1][i % 3] for i in range(4)]
        theirs = [
            engine.with_prune(prune).answer(engine.with_prune(prune).encode([c]), [s], max_new_tokens=4)[0]
            for c, s in zip(clips, samples, strict=True)
        ]
        given = [prompts(c, prompt(s)) for c, s in zip(clips, samples, strict=True)]
        ours = [out.outputs[0].text.strip() for out in llm.generate(given, sampling, use_tqdm=False)]
        if ours != [answer.text for answer in theirs]:
            differ[method] = (ours, [answer.text for answer in theirs])
    assert not differ


def _prune_by(worker: Any, prune: PruneConfig) -> None:
    worker.model_runner.get_model().prune = prune
