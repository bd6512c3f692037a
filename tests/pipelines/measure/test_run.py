"""What a speed run keeps, with an engine that only counts."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch

from pipelines.measure.plan import Plan, Setting
from pipelines.measure.run import run_plan
from pipelines.run.results import read_rows
from pipelines.run.stages import group_by_video
from videoprune.config import PruneConfig
from videoprune.eval.benchmarks.moving_shapes.load import load
from videoprune.types import Answer, Trace


@dataclass
class Encoded:
    trace: Trace
    path: str


@dataclass
class FakeEngine:
    """Says "A" to everything, and notes the clips, the questions and the tokens of every call."""

    prune: PruneConfig = field(default_factory=PruneConfig)
    calls: list[tuple[str, list[str], int]] = field(default_factory=list)
    room: int = 99  # clips that an unpruned call has memory for
    frame_size = (32, 32)
    model = torch.nn.Linear(1, 1)

    def with_prune(self, prune):
        return FakeEngine(prune, self.calls, self.room)

    def encode(self, frames):
        if len(frames) > self.room and self.prune.encoder.method == "none":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        seconds = {"preprocess": 0.1, "encode": 0.2, "encode_prune": 0.3, "fuse": 0.4}
        return [Encoded(Trace(8, {"a": (8, 4)}, 4, seconds=seconds), f.path) for f in frames]

    def answer(self, encoded, questions, *, max_new_tokens=64):
        self.calls.append((self.prune.encoder.method, [e.path for e in encoded], max_new_tokens))
        trace = Trace(8, {"a": (8, 4)}, 4, (4, 2), {"llm": 0.5, "llm_prune": 0.25})
        return [Answer("A", "A", trace) for _ in questions]


def halved():
    return PruneConfig.from_dict({"encoder": {"method": "random", "keep": 0.5}})


def test_seconds_are_the_sums_of_the_stages(clips, tmp_path):
    plan = Plan((Setting("none", 1.0, PruneConfig()),), (4,), (2,), runs=1, answers=False, max_new_tokens=5)
    run_plan(FakeEngine(), group_by_video(load(clips)), plan, tmp_path)
    (row,) = read_rows(tmp_path / "times.jsonl").values()
    assert row["tokens"] == {"dense": 8, "encoder": 4, "fused": 4, "llm_layers": [4, 2], "retention": 0.375}
    found = {stage: round(row[stage], 6) for stage in ("preprocess", "encode", "prune", "fuse")}
    assert found == {"preprocess": 0.2, "encode": 0.4, "prune": 1.1, "fuse": 0.8}  # of two clips
    assert {"prefill", "first_token", "generate", "total"} < set(row)
    assert row["end_to_end"] == row["decode"] + row["total"]  # of two clips, one after the other


def test_settings_take_turns_after_a_warm_up_of_whole_answers(clips, tmp_path):
    engine = FakeEngine()
    settings = (Setting("none", 1.0, PruneConfig()), Setting("random", 0.5, halved()))
    plan = Plan(settings, (4,), (1,), runs=2, answers=False, max_new_tokens=5)
    run_plan(engine, group_by_video(load(clips)), plan, tmp_path)
    timed = [method for method, _, most in engine.calls[:12] if most == 1]
    assert sorted(timed[:2]) == ["none", "random"]
    assert timed[2:] == ["none", "random", "random", "none"]  # another one first in the next round
    assert [most for *_, most in engine.calls[:12]] == [1, 5] * 6
    before = len(engine.calls)
    run_plan(engine, group_by_video(load(clips)), plan, tmp_path)
    assert len(engine.calls) == before  # nothing is measured again
    lines = (tmp_path / "times.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "times.jsonl").write_text("".join(lines[:-1]))
    run_plan(engine, group_by_video(load(clips)), plan, tmp_path)
    assert len(engine.calls) == before + 8  # the round that lacked one, whole, after a warm-up


def test_clips_together_are_timed_and_broken_ones_are_rows(clips, tmp_path):
    engine = FakeEngine()
    samples = load(clips, None)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"nothing")
    samples = [*samples[:3], type(samples[0])("x", str(broken), "What?", ("a", "b"), "A"), *samples[3:]]
    settings = (
        Setting("none", 1.0, PruneConfig()),
        Setting("random", 0.5, halved()),
    )
    plan = Plan(settings, (4,), (1, 2), runs=2)
    run_plan(engine, group_by_video(samples), plan, tmp_path)
    times, answers = read_rows(tmp_path / "times.jsonl"), read_rows(tmp_path / "answers.jsonl")
    together = [r for r in times.values() if r["concurrency"] == 2]
    assert len(together) == 2 * 2
    memory = read_rows(tmp_path / "memory.jsonl").values()
    assert {(r["setting"], r["concurrency"]) for r in memory} == {
        (s.label, n) for s in settings for n in (1, 2)
    }
    failed = [r for r in answers.values() if r["outcome"] == "failed"]
    assert {r["setting"] for r in failed} == {"none", "random@0.5"}
    assert all("broken.mp4" in r["reason"] for r in failed)
    assert len(answers) == 2 * 10


def test_too_few_clips_are_taken_again_in_turn(clips, tmp_path):
    engine = FakeEngine()
    plan = Plan((Setting("none", 1.0, PruneConfig()),), (4,), (5,), runs=1, answers=False)
    run_plan(engine, group_by_video(load(clips, None)), plan, tmp_path)
    paths = engine.calls[0][1]
    assert len(set(paths)) == 3
    assert paths == [*paths[:3], *paths[:2]]


def test_too_much_memory_at_a_step_is_a_row_with_its_reason_and_the_rest_goes_on(clips, tmp_path):
    engine = FakeEngine(room=2)
    settings = (Setting("none", 1.0, PruneConfig()), Setting("random", 0.5, halved()))
    plan = Plan(settings, (4,), (2, 3), runs=2, answers=False)
    items = group_by_video(load(clips))
    run_plan(engine, items, plan, tmp_path)
    rows = list(read_rows(tmp_path / "times.jsonl").values())
    assert [(r["setting"], r["concurrency"], r["reason"]) for r in rows if "reason" in r] == [
        (
            "none",
            3,
            "TooMuchMemoryError: DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes",
        )
    ]
    timed = [(r["setting"], r["concurrency"]) for r in rows if "run" in r]
    assert sorted(timed) == sorted([("none", 2), ("random@0.5", 2), ("random@0.5", 3)] * 2)
    memory = read_rows(tmp_path / "memory.jsonl").values()
    assert ("none", 3) not in {(r["setting"], r["concurrency"]) for r in memory}
    before = len(engine.calls)
    run_plan(engine, items, plan, tmp_path)
    assert len(engine.calls) == before  # not tried again


def test_another_error_is_not_taken_for_memory(clips, tmp_path):
    plan = Plan((Setting("none", 1.0, PruneConfig()),), (4,), (1,), runs=1, answers=False)

    class Broken(FakeEngine):
        def with_prune(self, prune):
            return Broken(prune, self.calls)

        def encode(self, frames):
            raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        run_plan(Broken(), group_by_video(load(clips)), plan, tmp_path)


def test_a_model_that_fails_on_a_clip_is_rows_with_the_reason_and_asked_again(clips, tmp_path):
    items = group_by_video(load(clips))

    class Picky(FakeEngine):
        def with_prune(self, prune):
            return Picky(prune, self.calls)

        def answer(self, encoded, questions, **more):
            if len(questions) > 1 and encoded[0].path == items[1].video:
                raise ValueError("a strange clip")
            return super().answer(encoded, questions, **more)

    plan = Plan((Setting("none", 1.0, PruneConfig()),), (4,), (1,), runs=1)
    for _ in range(2):  # the same failure is written once
        run_plan(Picky(), items, plan, tmp_path)
        lines = (tmp_path / "answers.jsonl").read_text().splitlines()
        assert len(lines) == 9
    rows = read_rows(tmp_path / "answers.jsonl").values()
    failed = [r for r in rows if r["outcome"] == "failed"]
    assert {r["video"] for r in failed} == {items[1].video}
    assert all(r["reason"] == "ValueError: a strange clip" for r in failed)
    run_plan(FakeEngine(), items, plan, tmp_path)
    assert all(r["outcome"] == "complete" for r in read_rows(tmp_path / "answers.jsonl").values())


def test_rounds_take_the_next_clip_that_can_be_read(clips, tmp_path):
    engine = FakeEngine()
    samples = load(clips)
    gone = type(samples[0])("x", str(tmp_path / "gone.mp4"), "What?", ("a", "b"), "A")
    plan = Plan((Setting("none", 1.0, PruneConfig()),), (4,), (1,), runs=4, answers=False)
    run_plan(engine, group_by_video([gone, *samples]), plan, tmp_path)
    assert len(read_rows(tmp_path / "times.jsonl")) == 4
    order = [paths[0] for _, paths, most in engine.calls if most == 1]
    clips_in_turn = list(dict.fromkeys(s.video for s in samples))
    assert order == [
        clips_in_turn[0],
        *clips_in_turn,
        clips_in_turn[0],
    ]  # a warm-up, then each, then the first again
