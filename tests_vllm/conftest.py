"""vLLM in this process, on a CPU, with the plug-in that is installed: `make test-vllm`."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # before vllm is imported
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
from vllm import LLM
from vllm.distributed import cleanup_dist_env_and_memory

from pipelines.vllm.padded_heads import pad_heads
from videoprune.eval.benchmarks.moving_shapes.load import load
from videoprune.eval.benchmarks.moving_shapes.make import make_benchmark
from videoprune.models.loading import model_folder
from videoprune.types import Sample, VideoFrames
from videoprune.video import Reader, Sampling

OPTIONS = {"enforce_eager": True, "dtype": "float32", "max_model_len": 1024, "max_num_seqs": 8, "seed": 0}


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> str:
    """qwen-demo, with heads as wide as vLLM's attention on a CPU takes them."""
    return str(pad_heads(model_folder("qwen-demo"), tmp_path_factory.mktemp("qwen"), 32))


@pytest.fixture(scope="session")
def llava(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(pad_heads(model_folder("llava-demo"), tmp_path_factory.mktemp("llava"), 32))


@pytest.fixture(scope="session")
def asked(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[VideoFrames, list[Sample]]]:
    """Eight clips of MovingShapes, three questions each."""
    samples = load(make_benchmark(tmp_path_factory.mktemp("clips") / "bench", clips=8, workers=1), None)
    reader, found = Reader(), dict[str, list[Sample]]()
    for sample in samples:
        found.setdefault(sample.video, []).append(sample)
    read = {v: reader.read(v, Sampling("uniform", 8), size=(96, 96)) for v in found}
    reader.close()
    return [(read[video], questions) for video, questions in found.items()]


@pytest.fixture(scope="module")
def load_llm() -> Iterator[Callable[..., Any]]:
    """A `vllm.LLM` of a folder, pruned as `prune` says; None: as vLLM has it."""
    made: list[Any] = []

    def loaded(folder: str, prune: Any = None, **options: Any) -> Any:
        more = {} if prune is None else {"additional_config": {"videoprune": {"prune": prune}}}
        made.append(LLM(folder, **{**OPTIONS, **more, **options}))
        return made[-1]

    yield loaded
    for llm in made:
        llm.llm_engine.engine_core.shutdown()
    made.clear()
    gc.collect()
    cleanup_dist_env_and_memory()


@pytest.fixture(autouse=True)
def _no_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VIDEOPRUNE_PRUNE", raising=False)


@pytest.fixture(scope="session")
def folder_of() -> Callable[[str], Path]:
    return model_folder
