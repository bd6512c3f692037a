"""The Ray executor against the local one, with actors that die, hang, or cannot start."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import RayError

from pipelines.run import local, ray_metrics, ray_pool
from pipelines.run import ray as ray_executor
from pipelines.run.driver_cost import driver_seconds
from pipelines.run.lost_device import LostDeviceError
from pipelines.run.model_stage import ModelStage
from pipelines.run.ray import RayOptions
from pipelines.run.ray_cluster import check_reachable
from pipelines.run.ray_pool import Call, Pool
from pipelines.run.stages import ClipItem, DecodedClip, DecodeStage, group_by_video
from pipelines.run.status import ActorStatus
from tests.video.remote.web import shared
from videoprune.config import preset
from videoprune.eval.benchmarks.moving_shapes.load import load
from videoprune.types import Sample
from videoprune.video.remote.options import RemoteOptions

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def free_cluster(cluster: None) -> None:
    """The actors of the test before give their cores back a moment after they were killed."""
    while ray.available_resources().get("CPU", 0) < 3:
        time.sleep(0.1)


def by_question(parts: Iterator[list[dict]]) -> dict[str, dict]:
    rows = [row for part in parts for row in part]
    found = {row["question_id"]: {k: v for k, v in row.items() if k != "seconds"} for row in rows}
    assert len(found) == len(rows)
    return found


def test_rows_equal_the_local_ones_whatever_happens_to_actors(
    free_cluster: None, tiny: Path, clips: Path, tmp_path: Path
) -> None:
    """One clip kills every actor that decodes it, one hangs the first actor; the others do not notice."""
    good = group_by_video(load(clips))
    missing = ClipItem(str(tmp_path / "no.mp4"), (Sample("missing-1", "no", "Which?", ("a", "b"), "A"),))
    deadly = ClipItem(good[0].video, (Sample("deadly-1", "x", "Which?", ("a", "b"), "A"),))
    slow = ClipItem(good[1].video, (Sample("slow-1", "y", "Which?", ("a", "b"), "A"),))
    hung = tmp_path / "hung"

    class Fragile(DecodeStage):
        def process(self, item: ClipItem) -> DecodedClip:
            name = item.samples[0].question_id
            if name == "deadly-1":
                os._exit(3)
            if name == "slow-1" and not hung.exists():
                hung.touch()
                time.sleep(1000)
            return super().process(item)

    prune = preset("balanced").replace(**{"llm.method": "random", "llm.lambda_": None})
    stage = ModelStage(str(tiny), prune, device="cpu", max_new_tokens=2)
    options = RayOptions(decoders=2, models=1, item_seconds=12, retries=2)
    items = [deadly, slow, *good, missing]
    found = by_question(ray_executor.run(items, Fragile(4, (32, 32)), stage, options=options))
    alike = by_question(local.run([slow, *good, missing], DecodeStage(4, (32, 32)), stage))
    lost = found.pop("deadly-1")
    assert lost["outcome"] == "failed"
    assert lost["reason"].startswith("set aside after 3 attempts: decode: the process died")
    assert lost["kind"] == "ActorDiedError"
    assert "ActorDiedError" in lost["traceback"]
    assert found == alike
    assert hung.exists()
    assert ray.is_initialized()  # a cluster of the caller's stays


def test_videos_that_lie_elsewhere(free_cluster: None, tiny: Path, clips: Path, tmp_path: Path) -> None:
    """Both decoding actors fetch into one folder; the third video is not there."""
    prune, out = preset("none"), tmp_path / "fetched"
    stage = ModelStage(str(tiny), prune, device="cpu", batch=3, max_new_tokens=1)
    items = group_by_video(load(clips))
    alike = by_question(local.run(items[:2], DecodeStage(4, (32, 32)), stage))
    with shared(clips / "data") as address:
        there = [replace(item, video=f"{address}/{Path(item.video).name}") for item in items]
        there[2] = replace(there[2], video=f"{address}/none.mp4")
        decode = DecodeStage(4, (32, 32), remote=RemoteOptions(str(out)))
        found = by_question(ray_executor.run(there, decode, stage, options=RayOptions(decoders=2, models=1)))
    lost = [found.pop(sample.question_id) for sample in items[2].samples]
    assert {(row["kind"], row["reason"]) for row in lost} == {
        ("missing", f"missing: {address}/none.mp4: {address}/none.mp4")
    }
    assert found == alike
    assert sorted(p.stat().st_size for p in out.glob("*.mp4")) == sorted(
        Path(item.video).stat().st_size for item in items[:2]
    )


def test_figures_for_prometheus(
    free_cluster: None, tiny: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[dict[str, str]] = []
    set_to: dict[str, list[float]] = {}
    monkeypatch.setattr(ray_metrics.Counter, "inc", lambda _, n, tags: counted.append(tags))
    monkeypatch.setattr(
        ray_metrics.Gauge, "set", lambda self, value: set_to.setdefault(self._name, []).append(value)
    )
    missing = ClipItem(str(tmp_path / "no.mp4"), (Sample("missing-1", "no", "Which?", ("a", "b"), "A"),))
    stage, status = (
        ModelStage(str(tiny), preset("none"), device="cpu", batch=3),
        ActorStatus(),
    )  # a clip a group
    monkeypatch.setattr(ray_executor.Lookout, "look", lambda self: True)
    items = [*group_by_video(load(clips)), missing]
    list(ray_executor.run(items, DecodeStage(4, (32, 32)), stage, status=status))
    assert sorted(tag["outcome"] for tag in counted) == ["complete"] * 9 + ["failed"]
    assert {tag["kind"] for tag in counted} == {"", "missing"}
    assert max(set_to["videoprune_models"]) == max(set_to["videoprune_decoders"]) == 1
    assert 0 < max(set_to["videoprune_model_busy"]) <= 1
    assert status.model_seconds > 0


def test_the_traceback_of_an_actor_reaches_the_row(free_cluster: None, tiny: Path, clips: Path) -> None:
    class Broken(ModelStage):
        def _rows(self, *args: object) -> list:
            raise RuntimeError("no room")

    stage = Broken(str(tiny), preset("none"), device="cpu")
    rows = [
        row
        for part in ray_executor.run(group_by_video(load(clips))[:1], DecodeStage(4, (32, 32)), stage)
        for row in part
    ]
    assert {row["reason"] for row in rows} == {"RuntimeError: no room"}
    assert all("in _rows" in row["traceback"] for row in rows)


def test_an_actor_that_lost_its_device_is_replaced(
    free_cluster: None, tiny: Path, clips: Path, tmp_path: Path
) -> None:
    lost = tmp_path / "lost"

    class Losing(ModelStage):
        def process_all(self, *args: Any) -> list:
            if not lost.exists():
                lost.touch()
                raise LostDeviceError("CUDA error: device-side assert triggered")
            return super().process_all(*args)

    stage = Losing(str(tiny), preset("none"), device="cpu", max_new_tokens=1)
    items = group_by_video(load(clips))
    found = by_question(ray_executor.run(items, DecodeStage(4, (32, 32)), stage))
    assert lost.exists()
    assert len(found) == len(load(clips))
    assert {row["outcome"] for row in found.values()} == {"complete"}


def test_one_model_that_does_not_come_back_ends_no_run(
    free_cluster: None, tiny: Path, clips: Path, tmp_path: Path
) -> None:
    """Of two models one dies, and what should take its place dies while it starts, again and again."""
    started = tmp_path / "started"
    started.mkdir()

    class Dying(ModelStage):
        def setup(self) -> None:
            (started / f"{time.monotonic_ns()}").touch()
            if len(list(started.iterdir())) > 2:
                os._exit(3)
            super().setup()

        def process_all(self, *args: Any) -> list:
            died = started.parent / "died"
            if not died.exists():
                died.touch()
                os._exit(3)
            return super().process_all(*args)

    stage = Dying(str(tiny), preset("none"), device="cpu", batch=3, max_new_tokens=1)
    items = group_by_video(load(clips)) * 4
    items = [
        replace(i, samples=tuple(replace(s, question_id=f"{n}-{s.question_id}") for s in i.samples))
        for n, i in enumerate(items)
    ]
    options = RayOptions(decoders=1, models=2, retries=1)
    found = by_question(ray_executor.run(items, DecodeStage(4, (32, 32)), stage, options=options))
    assert len(found) == 36
    assert {row["outcome"] for row in found.values()} == {"complete"}
    assert len(list(started.iterdir())) >= 2


def test_answers_that_are_lost_with_their_machine_are_asked_again(
    free_cluster: None, tiny: Path, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[Call] = []
    result = Pool.result

    def losing(self: Pool, call: Call) -> Any:
        if len(lost) >= 2:
            return result(self, call)
        lost.append(call)
        with monkeypatch.context() as patched:
            patched.setattr(ray_pool.ray, "get", gone)
            failure = result(self, call)
        assert failure.reason == "model: the node is gone"
        return failure

    def gone(*_: object) -> None:
        raise RayError("the node is gone")

    monkeypatch.setattr(Pool, "result", losing)
    stage = ModelStage(str(tiny), preset("none"), device="cpu", max_new_tokens=1)
    found = by_question(ray_executor.run(group_by_video(load(clips)), DecodeStage(4, (32, 32)), stage))
    assert len(lost) == 2
    assert len(found) == 9
    assert {row["outcome"] for row in found.values()} == {"complete"}


def test_impossible_settings_reach_the_caller(free_cluster: None, tiny: Path, clips: Path) -> None:
    prune = preset("balanced").replace(**{"llm.keep": 0.4})
    stage = ModelStage(str(tiny), prune, device="cpu")
    with pytest.raises(ValueError, match="not calibrated"):
        list(ray_executor.run(group_by_video(load(clips)), DecodeStage(4, (32, 32)), stage))


def test_every_clip_passes_stages_that_do_nothing(free_cluster: None) -> None:
    assert driver_seconds(40, 1) > 0


def test_a_cluster_answers_at_its_address(cluster: None) -> None:
    check_reachable(ray.get_runtime_context().gcs_address, "ray_address")


def test_nodes_that_offer_no_core_get_no_actor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four nodes of 8 cores and a GPU, and a head without either, as the files in configs/clusters have them."""
    nodes = [{"Alive": True, "Resources": r} for r in [{}, *[{"CPU": 8.0, "GPU": 1.0}] * 4]]
    free = {"CPU": 32.0, "GPU": 4.0}
    monkeypatch.setattr(
        ray_executor, "ray", SimpleNamespace(available_resources=lambda: free, nodes=lambda: nodes)
    )
    assert ray_executor._shares(RayOptions(2, 4, 6), None) == (1.0, 2.0, 1.0)
    assert ray_executor._shares(RayOptions(1, 8, 3), None) == (1.0, 1.0, 0.5)


@pytest.mark.parametrize("wrong", [{"decoders": 0}, {"models": 0}, {"item_seconds": 0.0}, {"retries": -1}])
def test_impossible_options_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RayOptions(**wrong)  # type: ignore[arg-type]
