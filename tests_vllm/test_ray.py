"""vLLM inside Ray actors, with its engine in processes of its own: what dies is replaced, and nothing stays behind."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from pipelines.run import ray as ray_executor
from pipelines.run.lost_device import LostDeviceError
from pipelines.run.ray import RayOptions
from pipelines.run.stages import DecodedClip, DecodeStage, group_by_video
from pipelines.vllm.stage import VllmStage
from videoprune.config import preset
from videoprune.eval.benchmarks.moving_shapes.load import load
from videoprune.eval.benchmarks.moving_shapes.make import make_benchmark
from videoprune.result_row import ResultRow

pytestmark = pytest.mark.filterwarnings("ignore")
OPTIONS = {"enforce_eager": True, "max_model_len": 1024, "max_num_seqs": 8}
APART = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}


@pytest.fixture
def cluster() -> Iterator[None]:
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": APART},
    )
    yield
    ray.shutdown()


def by_question(parts: Iterable[list[ResultRow]]) -> dict[str, dict[str, Any]]:
    rows = [row for part in parts for row in part]
    found = {row["question_id"]: {k: v for k, v in row.items() if k != "seconds"} for row in rows}
    assert len(found) == len(rows)
    return found


def gone(pids: Sequence[int]) -> bool:
    """Whether all are soon."""
    until = time.monotonic() + 60
    while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.2)
    return not any(psutil.pid_exists(pid) for pid in pids)


def test_an_actor_that_loses_its_engine_is_replaced(cluster: None, tmp_path: Path) -> None:
    items = group_by_video(load(make_benchmark(tmp_path / "bench", clips=2, workers=1), None))
    seen, noticed = tmp_path / "seen", tmp_path / "noticed"
    seen.mkdir()

    class Fragile(VllmStage):
        """Its first actor kills vLLM's engine, the second one answers."""

        def process_all(self, clips: Sequence[DecodedClip]) -> list[list[ResultRow]]:
            inside = psutil.Process().children(recursive=True)
            number = len(list(seen.iterdir()))
            (seen / str(os.getpid())).write_text(" ".join(str(p.pid) for p in inside))
            if number == 0:
                for process in inside:
                    process.kill()
            try:
                return super().process_all(clips)
            except LostDeviceError as error:
                noticed.write_text(str(error))
                raise

    stage = Fragile("qwen-demo", preset("balanced-serve"), batch=6, options=OPTIONS)
    decode, options = DecodeStage(8, (96, 96)), RayOptions(decoders=1, models=1)
    found = by_question(ray_executor.run(items, decode, stage, options=options))
    assert "EngineDeadError" in noticed.read_text()  # not the deadline has ended it
    assert len(found) == 6
    assert {row["outcome"] for row in found.values()} == {"complete"}
    assert sum(row["correct"] for row in found.values()) >= 5  # the demo model knows these
    inside = [[int(pid) for pid in path.read_text().split()] for path in seen.iterdir()]
    assert len(inside) == 2
    assert all(inside)  # the engine was in a process of its own
    assert gone([pid for pids in inside for pid in pids])
