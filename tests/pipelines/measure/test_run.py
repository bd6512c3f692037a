"""What a speed run keeps, with an engine that only counts."""

from __future__ import annotations

from dataclasses import dataclass, field

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
    frame_size = (32, 32)
    model = torch.nn.Linear(1, 1)

    def with_prune(self, prune):
        return FakeEngine(prune, self.calls)

    def encode(self, frames):
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
