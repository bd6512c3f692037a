"""`speedup --engine vllm` with workers that only say they were asked: turns, going on, failures, figures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pipelines import speedup
from pipelines.cli import main
from pipelines.measure.asked import open_asked
from pipelines.vllm.compared import METHODS, compared
from pipelines.vllm.speed_run import VllmSpeedRun
from pipelines.vllm.worker import Spec, _frames
from pipelines.vllm.worker_process import WorkerError
from videoprune.models.loading import model_config

SPEEDUP = ["speedup", "moving-shapes", "--engine", "vllm", "--model", "qwen-demo"]
NONE, OURS, EVS = "none", "balanced-serve@0.25", "vllm-evs@0.25"
PROMPT = {NONE: 160, OURS: 52, EVS: 51}  # tokens; of EVS two beside the clip are left out
SECONDS = {NONE: 4.0, OURS: 2.0, EVS: 5.0}


@dataclass
class Fleet:
    """Makes workers, and remembers what they were asked. before: called with a label and the number of its request."""

    before: Callable[[str, int], None] = lambda label, number: None
    specs: dict[str, Spec] = field(default_factory=dict)
    asked: list[tuple[Any, ...]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    seen: dict[str, set[int]] = field(default_factory=dict)

    def __call__(self, spec: Spec, log: Path) -> FakeWorker:
        self.specs[log.stem] = spec
        return FakeWorker(self, log.stem)


@dataclass
class FakeWorker:
    fleet: Fleet
    label: str
    number: int = 0

    def begin(self) -> None:
        self.fleet.asked.append(("begin", self.label))

    def ask(self, what: str, *, asked: list[tuple[str, str]], in_flight: int = 0) -> dict[str, Any]:
        self.number += 1
        self.fleet.before(self.label, self.number)
        self.fleet.asked.append((what, self.label, in_flight, len(asked)))
        for path, _ in asked:
            self.fleet.seen.setdefault(self.label, set()).add(int(_frames(path).pixels.sum()))
        if what == "rate":
            slower = 1 + 0.5 * (self.number % 2) if self.label != NONE else 1.0
            seconds = SECONDS[self.label] * slower
            return {
                "requests": len(asked),
                "seconds": seconds,
                "prompt_tokens": PROMPT[self.label],
                "dense": 144.0,
                "left_out": 2 if self.label == EVS else 0,
            }
        text = "A" if self.label == NONE else "B"
        return {"answers": [{"text": text, "prompt_tokens": PROMPT[self.label]} for _ in asked]}

    def close(self) -> None:
        self.fleet.ended.append(self.label)

    kill = close


def arguments(clips: Path, *words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    speedup.add(parser.add_subparsers())
    given = [*SPEEDUP, "--data", str(clips), "--retain", "0.25", "--methods", "none,balanced-serve,vllm-evs"]
    return parser.parse_args([*given, "--concurrency", "1,2", "--runs", "3", "--requests", "4", *words])


def measure(clips: Path, out: Path, fleet: Fleet, *words: str) -> int:
    args = arguments(clips, *words)
    asked = open_asked(args)
    return VllmSpeedRun(args.model, args, asked, out, make=fleet, engine=lambda: "0.32.0").measure()


def rows_of(out: Path) -> dict[str, Any]:
    return {row["label"]: row for row in json.loads((out / "results.json").read_text())["rows"]}


def test_all_take_turns_on_the_same_clips_and_another_one_is_first_each_run(clips, tmp_path) -> None:
    fleet = Fleet()
    assert measure(clips, tmp_path, fleet) == 0
    rates = [asked for asked in fleet.asked if asked[0] == "rate"]
    labels = [NONE, OURS, EVS]
    turned = [labels[i:] + labels[:i] for i in (2, 0, 1, 2)]  # the first to warm up
    for count, block in ((1, rates[:12]), (2, rates[12:])):
        assert [label for _, label, *_ in block] == [label for turn in turned for label in turn]
        assert [asked[2:] for asked in block] == [(count, count)] * 3 + [(count, 4)] * 9
    assert fleet.seen[NONE] == fleet.seen[OURS] == fleet.seen[EVS]
    assert len(fleet.seen[NONE]) == 3
    answers = [label for what, label, *_ in fleet.asked if what == "answers"]
    assert sorted(answers) == sorted(labels)  # nine questions go together
    assert sorted(fleet.ended) == sorted(labels)
    assert {spec.gpu for spec in fleet.specs.values()} == {1 / 3}
    assert (fleet.specs[EVS].own, fleet.specs[OURS].own) == ("evs", "")
    assert fleet.specs[EVS].prune == fleet.specs[OURS].prune
    assert {spec.most for spec in fleet.specs.values()} == {2}


def test_figures_and_tables(clips, tmp_path, capsys) -> None:
    assert measure(clips, tmp_path, Fleet()) == 0
    rows = rows_of(tmp_path)
    assert {label: row["visual_tokens"] for label, row in rows.items()} == {NONE: 144, OURS: 36, EVS: 37}
    assert {label: row["prompt_tokens"] for label, row in rows.items()} == PROMPT
    # Requests of a worker: one to warm up, then three, the second of them (number 3) half as fast again.
    found = rows[OURS]["in_flight"]["1"]
    assert found["requests_per_second"] == {"median": 2.0, "low": pytest.approx(4 / 3), "high": 2.0}
    assert found["times_unpruned"] == {"median": 2.0, "low": pytest.approx(4 / 3), "high": 2.0}
    for label, said in ((NONE, "A"), (OURS, "B")):
        right = [s.answer == said for s in open_asked(arguments(clips)).samples]
        assert rows[label]["accuracy"]["all"] == pytest.approx(sum(right) / 9)
    gap = rows[OURS]["accuracy"]["all"] - rows[NONE]["accuracy"]["all"]
    assert rows[OURS]["accuracy"]["difference"] == pytest.approx(gap)
    tables = (tmp_path / "tables.md").read_text()
    assert tables in capsys.readouterr().out
    assert "| balanced-serve@0.25 | 36 | 52 |" in tables
    assert "2; 2.00x (1.33 to 2.00)" in tables
    assert "took turns" in tables
    assert "vllm 0.32.0" in tables


def test_a_run_that_was_interrupted_measures_what_is_missing(clips, tmp_path) -> None:
    def stop(label: str, number: int) -> None:
        if (label, number) == (EVS, 3):
            raise KeyboardInterrupt

    broken = Fleet(stop)
    with pytest.raises(KeyboardInterrupt):
        measure(clips, tmp_path, broken)
    assert sorted(broken.ended) == sorted([NONE, OURS, EVS])  # no worker is left
    kept = (tmp_path / "rates.jsonl").read_text().splitlines()
    again = Fleet()
    assert measure(clips, tmp_path, again) == 0
    timed = [asked for asked in again.asked if asked[0] == "rate" and asked[2:] == (1, 4)]
    assert len(timed) == 6  # of three runs one was whole
    assert (tmp_path / "rates.jsonl").read_text().splitlines()[: len(kept)] == kept
    whole = Fleet()
    assert measure(clips, tmp_path, whole) == 0
    assert whole.asked == []
    more = Fleet()
    assert measure(clips, tmp_path, more, "--runs", "4") == 0
    assert len([asked for asked in more.asked if asked[0] == "rate" and asked[3] == 4]) == 6


def test_a_worker_that_dies_is_a_row_with_its_reason_and_the_others_go_on(clips, tmp_path, capsys) -> None:
    def die(label: str, number: int) -> None:
        if (label, number) == (EVS, 6):
            raise WorkerError("the process died with status -9")

    assert measure(clips, tmp_path, Fleet(die)) == 1
    rows = rows_of(tmp_path)
    assert rows[EVS]["reason"] == "WorkerError: the process died with status -9"
    assert list(rows[EVS]["in_flight"]) == ["1"]
    assert [rows[OURS]["in_flight"][n]["runs"] for n in "12"] == [3, 3]
    assert rows[OURS]["accuracy"]["questions"] == 9
    assert "ERROR" in (tmp_path / "tables.md").read_text()
    assert "vllm-evs@0.25 failed: WorkerError" in capsys.readouterr().err
    assert measure(clips, tmp_path, Fleet()) == 0  # tried again
    assert rows_of(tmp_path)[EVS]["reason"] == ""


def test_one_at_a_time(clips, tmp_path) -> None:
    fleet = Fleet()
    assert measure(clips, tmp_path, fleet, "--one-at-a-time") == 0
    labels = [asked[1] for asked in fleet.asked]
    assert labels == sorted(labels, key=[NONE, OURS, EVS].index)
    assert {spec.gpu for spec in fleet.specs.values()} == {1.0}
    assert "One method after the other" in (tmp_path / "tables.md").read_text()
    with pytest.raises(ValueError, match="holds figures of another turns"):
        measure(clips, tmp_path, Fleet())
    with pytest.raises(ValueError, match="holds figures of another requests"):
        measure(clips, tmp_path, Fleet(), "--one-at-a-time", "--requests", "8")


def test_frames_lie_there_only_as_long_as_they_are_needed(clips, tmp_path) -> None:
    """Of three clips one is needed again and again; the others go once they were asked about."""
    there: list[int] = []
    fleet = Fleet(lambda label, number: there.append(len(list(frames.glob("*.frames")))))
    args = arguments(clips, "--concurrency", "1", "--requests", "1", "--runs", "1", "--methods", "none")
    run = VllmSpeedRun(args.model, args, open_asked(args), tmp_path, make=fleet, engine=lambda: "0.32.0")
    frames = tmp_path / "frames"
    frames.mkdir()
    plan, _ = run._plan()
    assert run._take(plan, frames) == {}
    assert there == [1, 1, 3]  # to warm up, timed, asked
    assert len(list(frames.glob("*.frames"))) == 1
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 9


def test_the_default_methods_and_what_a_model_cannot_do() -> None:
    qwen, nothing = compared(None, (0.25, 0.5), model_config("qwen-demo"))
    assert tuple(dict.fromkeys(s.method for s in qwen)) == METHODS
    assert [s.retain for s in qwen[1:3]] == [0.5, 0.25]
    assert nothing == []
    llava, refused = compared(None, (0.25,), model_config("llava-demo"))
    assert [s.label for s in llava] == [NONE, OURS]
    assert [r["method"] for r in refused] == ["vllm-evs@0.25", "vllm-vidcom2@0.25"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--plan"], "--plan with --engine vllm; allowed: a run without it"),
        (["--device", "cpu"], "--device=cpu with --engine vllm; allowed: none"),
        (["--frames", "8,16"], "--frames=8,16 with --engine vllm; allowed: one number"),
        (["--model", "demo"], "model='demo': model_type='videoprune_multi_encoder'; allowed inside vLLM"),
        (
            ["--methods", "fastv"],
            "methods='fastv' with --engine vllm: it drops tokens between the LLM's layers",
        ),
        (["--methods", "fastv"], "; allowed for this model: none, balanced-serve"),
        (["--methods", "fast"], "methods='fast' with --engine vllm: method='fast'"),
        (["--methods", "vidcom2"], "methods='vidcom2' with --engine vllm"),
        (["--model", "llava-demo", "--methods", "vllm-evs"], "vLLM prunes qwen2_5_vl and qwen3_vl by itself"),
        (["--retain", "1.5"], "--retain=1.5 with --engine vllm; allowed: numbers between 0 and 1"),
        (["--engine", "transformers", "--requests", "4"], "--requests=4 with --engine transformers; allowed"),
        (["--engine", "transformers", "--one-at-a-time"], "--one-at-a-time=True with --engine transformers"),
    ],
)
def test_what_makes_no_sense_is_refused(words, said, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*SPEEDUP, *words]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
