"""What becomes of the vLLM stage on its way into a Ray actor; vLLM is not needed for that."""

from __future__ import annotations

import pickle

from pipelines.vllm.ends_with_parent import VARIABLE
from pipelines.vllm.stage import VllmStage
from videoprune.config import preset


def test_it_travels_and_shares_a_gpu() -> None:
    stage = VllmStage("qwen-demo", preset("balanced-serve"), batch=6, options={"max_model_len": 64})
    there = pickle.loads(pickle.dumps(stage.in_actor(0.5)))
    assert there.options == {"max_model_len": 64, "gpu_memory_utilization": 0.45}
    assert there._environment[VARIABLE] == "1"
    assert there.device is None
    whole = stage.in_actor(1.0)
    assert whole.options == {"max_model_len": 64}
    assert stage._environment == {}  # the local executor leaves the environment as it is
