"""MovingShapes streams: what a stream promises; each question has its one answer in what was shown before."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from videoprune.eval.benchmarks.moving_shapes.plan import TEST_SEEDS
from videoprune.eval.benchmarks.moving_shapes.scene import COLORS
from videoprune.eval.benchmarks.moving_stream.bench import MovingStream
from videoprune.eval.benchmarks.moving_stream.draw import stream_frames
from videoprune.eval.benchmarks.moving_stream.make import make_streams
from videoprune.eval.benchmarks.moving_stream.plan import StreamPlan, plan_stream
from videoprune.eval.benchmarks.moving_stream.questions import ASKED, TITLES, minutes, span_of
from videoprune.eval.benchmarks.moving_stream.scene import Stream, sample_stream
from videoprune.eval.benchmarks.stream_times import ANSWERED_AT, DUE, is_standing, seconds_of
from videoprune.types import UNUSABLE
from videoprune.video import Sampling, read

Shown = dict[int, list[tuple[str, float, float]]]  # by second: name and place of what is there


@pytest.fixture(scope="module")
def plans() -> list[StreamPlan]:
    return [*(plan_stream(i, 4) for i in range(12)), plan_stream(0, 4, 60), plan_stream(1, 4, 4)]


def shown(stream: Stream, until: int) -> Shown:
    """What can be seen in the middle of each second, from the shots alone."""
    found: Shown = {}
    for second in range(until):
        shot, t = stream.shot_at(second + 0.5)
        there = [o for o in shot.objects if o.visible(t)]
        found[second] = [(o.name, *o.position(t, shot.duration)) for o in there]
    return found


def test_a_stream_keeps_its_promises(plans: list[StreamPlan]) -> None:
    for stream in (p.stream for p in plans):
        ends = [*stream.starts[1:], stream.duration]
        assert [s.duration for s in stream.shots] == [b - a for a, b in zip(stream.starts, ends, strict=True)]
        assert stream.starts[0] == 0
        assert all(10 <= s.duration <= 30 for s in stream.shots)
        for a, b in pairwise(stream.shots):
            assert a.background_seed != b.background_seed
        by_name: dict[str, list[Any]] = {}
        for v in stream.visits:
            assert v.end - v.start >= 3
            by_name.setdefault(v.name, []).append(v)
        assert not by_name.keys() & set(stream.absent)
        assert len(by_name) + len(stream.absent) == 48
        for visits in by_name.values():  # two stays of one object can be told apart
            assert all(b.start - a.end >= 8 for a, b in pairwise(visits))
        for second, there in shown(stream, min(stream.duration, 300)).items():
            names = [name for name, *_ in there]
            assert len(set(names)) == len(names), second
            for i, (_, x, y) in enumerate(there):
                assert all(np.hypot(x - u, y - v) > 0.17 for _, u, v in there[:i])


def quarter(x: float, y: float) -> str:
    return f"{'bottom' if y > 0.5 else 'top'} {'right' if x > 0.5 else 'left'}"


def holds(stream: Stream, past: Shown, row: dict[str, Any], option: str) -> bool:
    """Whether an option is true, from what was visible in the seconds before the question alone."""
    t, kind, words = len(past), row["kind"], row["question"].rstrip("?").split(": ")[-1].split()
    seconds: dict[str, list[int]] = {}
    for second, there in past.items():
        for name, *_ in there:
            seconds.setdefault(name, []).append(second)
    now = [name for name, *_ in past[t - 1]]
    if kind == "now" and words[1] in ("color", "shape"):
        key = {"color": (words[-1], 1, 0), "shape": (words[4], 0, 1)}[words[1]]
        found = {n.split()[key[2]] for n in now if n.split()[key[1]] == key[0]}
        return found == {option}
    if words[0] == "Where":
        name = " ".join(words[3:5])
        looked = [t - 1] if kind == "now" else list(past)
        places = {quarter(x, y) for second in looked for n, x, y in past[second] if n == name}
        return places == ({option} if option != "not shown" else set())
    if kind == "recent":
        return any(s >= t - 30 for s in seconds.get(option, []))
    if kind == "recur":
        stays = sum(b - a > 1 for a, b in pairwise([-9, *seconds.get(" ".join(words[5:7]), [])]))
        return int(option) == stays
    if kind == "when":
        at = seconds[" ".join(words[3:5])]
        return any(
            option == minutes(a, a + span_of(t)) and a <= at[0] <= at[-1] < a + span_of(t)
            for a in range(0, t, span_of(t))
        )
    if kind == "order":
        options = [o[3:] for o in row["options"]]
        chosen = (min if words[-1] == "first" else max)(options, key=lambda n: seconds[n][0])
        return option == chosen
    return option in (now if kind == "now" else seconds)


def test_each_answer_is_what_was_seen_before(plans: list[StreamPlan]) -> None:
    asked: Counter[str] = Counter()
    for plan in plans:
        for row in map(dict, plan.rows):
            kind, t = str(row["kind"]), seconds_of(str(row["time_stamp"]))
            if kind == "alert":
                continue
            asked[kind] += 1
            past = shown(plan.stream, t)
            options = [str(o)[3:] for o in row["options"]]
            assert len(set(options)) == 4, row
            true = [holds(plan.stream, past, row, o) for o in options]
            assert true == [c == row["answer"] for c in "ABCD"], row
    assert asked == dict.fromkeys(ASKED, 4 * len(plans))


def test_an_alert_is_due_when_its_object_comes_first(plans: list[StreamPlan]) -> None:
    never = 0
    for plan in plans:
        whole = shown(plan.stream, plan.stream.duration)
        for row in (r for r in plan.rows if r["kind"] == "alert"):
            t, name = seconds_of(str(row["time_stamp"])), str(row["ground_truth_output"])
            assert row["question"] == f"Tell me when the {name} is shown."
            later = [s for s in whole if s >= t and name in [n for n, *_ in whole[s]]]
            due = str(row["ground_truth_time_stamp"])
            never += not due
            assert later[:1] == ([seconds_of(due)] if due else [])
            assert not any(name in [n for n, *_ in whole[s]] for s in range(t))
    assert 0.1 < never / (4 * len(plans)) < 0.5


def test_recall_is_of_long_ago(plans: list[StreamPlan]) -> None:
    for plan in plans:
        for row in (r for r in plan.rows if r["kind"] == "recall"):
            t, end = seconds_of(str(row["time_stamp"])), seconds_of(str(row["clues"][0]).split("-")[1])
            assert end <= 0.5 * t
            assert t - end >= min(60, 0.5 * t)


def test_letters_balance_and_streams_depend_on_seed_length_and_index(plans: list[StreamPlan]) -> None:
    for kind in ASKED:
        letters = Counter(r["answer"] for p in plans[:12] for r in p.rows if r["kind"] == kind)
        assert letters == dict.fromkeys("ABCD", 12)
    assert plan_stream(3, 4) == plans[3]
    assert len({str(p.stream) for p in plans}) == len(plans)
    assert plan_stream(0, 5).stream != plans[0].stream
    with pytest.raises(ValueError, match=f"seed={TEST_SEEDS}; allowed"):
        plan_stream(0, TEST_SEEDS)  # from here on they belong to training
    for length in (1, 181, float("nan")):
        with pytest.raises(ValueError, match=r"minutes=.*; allowed: 4 to 180"):
            sample_stream(np.random.default_rng(0), minutes=length)


def test_frames_come_lazily_and_are_the_same_from_wherever_one_starts() -> None:
    hour = plan_stream(0, 4, 60).stream
    first = [f for _, f in islice(stream_frames(hour, 48, 2), 60)]
    again = list(stream_frames(hour, 48, 2, since=10, until=30))
    assert [t for t, _ in again] == [10 + i / 2 for i in range(40)]
    assert all(np.array_equal(f, first[round(2 * t)]) for t, f in again)
    late = list(stream_frames(hour, 48, 2, since=3590))
    assert [t for t, _ in late] == [3590 + i / 2 for i in range(20)]
    with pytest.raises(ValueError, match=r"fps=1\.5; allowed: whole numbers"):
        next(stream_frames(hour, 48, 1.5))  # type: ignore[arg-type]


def test_colours_of_what_is_there_are_in_the_frame(plans: list[StreamPlan]) -> None:
    stream = plans[0].stream
    for v in [v for v in stream.visits if v.quarter][:12]:
        t = v.start + 1
        (_, frame), *_ = stream_frames(stream, 96, 1, since=t, until=t + 1)
        x, y = next((x, y) for n, x, y in shown(stream, t + 1)[t] if n == v.name)
        spot = frame[round(96 * y) - 2 : round(96 * y) + 3, round(96 * x) - 2 : round(96 * x) + 3].mean(
            (0, 1)
        )
        near = min(COLORS, key=lambda c: float(np.abs(np.array(COLORS[c]) - spot).sum()))
        assert near == v.name.split()[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_streams(
        tmp_path_factory.mktemp("streams") / "made", streams=1, minutes=4, size=48, fps=1, workers=1
    )


def test_files_and_rows(folder: Path) -> None:
    samples = MovingStream().load(folder, split="test")
    assert len(samples) == 32
    assert Counter(s.meta["category"] for s in samples) == dict.fromkeys(TITLES, 4)
    assert not any(UNUSABLE in s.meta for s in samples)
    asked = [s for s in samples if not is_standing(s)]
    assert len({s.until for s in asked}) == 4
    frames = read(samples[0].video, Sampling("fps", 10_000, fps=1.0))
    assert len(frames) == 240
    assert frames.pts_seconds[-1] == 239.0
    cut = read(samples[0].video, Sampling("last", 4, fps=1.0, until=asked[0].until))
    assert cut.pts_seconds[-1] == asked[0].until - 1
    assert make_streams(folder, streams=1, minutes=4, size=48, fps=1, workers=1) == folder
    with pytest.raises(ValueError, match="holds another benchmark"):
        make_streams(folder, streams=2, minutes=4, size=48, fps=1, workers=1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "guess"}, "kind='guess'; allowed: now, recent"),
        ({"time_stamp": "later"}, "time='later'; allowed"),
        ({"options": ["A. x"]}, "options=['A. x']; allowed: a list of four texts"),
        ({"answer": "E"}, "answer='E'; allowed: A, B, C, D"),
        ({"videoID": ""}, "videoID=''; allowed"),
    ],
)
def test_broken_rows_are_kept_with_their_reasons(
    folder: Path, tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    rows = [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]
    rows[0] |= change
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    samples = MovingStream().load(tmp_path, split="test")
    assert len(samples) == 32
    assert reason in samples[0].meta[UNUSABLE]
    assert samples[1].meta[UNUSABLE].startswith("missing: no ")


def test_scores_by_kind_by_distance_and_of_alerts(folder: Path) -> None:
    bench, rows = MovingStream(), []
    for s in MovingStream().load(folder, split="test"):
        meta = {k: v for k, v in s.meta.items() if k not in ("category", "video_id", "duration")}
        text, category = s.answer, s.meta["category"]
        if is_standing(s):
            late = len(rows) % 16 > 8  # every other one comes three seconds late, or when nothing does
            meta[ANSWERED_AT] = str(float(meta[DUE]) + 3 * late) if meta[DUE] else "99" * late
            text = f"The {s.answer} is here." if meta[ANSWERED_AT] else ""
        elif category == "when":
            text = "no idea"
        rows.append(
            {"question_id": s.question_id, "video_id": "001", "category": category, "answer": s.answer}
            | {"text": text, "meta": meta, "outcome": "complete", "reason": ""}
        )
    scores = bench.score(rows, split="test", protocol="official").as_dict()
    accuracy = {k: (v["sum"], v["n"]) for k, v in scores["metrics"]["accuracy"].items()}
    assert accuracy["all"] == (24, 28)
    assert (accuracy["now"], accuracy["when"]) == ((4, 4), (0, 4))
    far = [v for k, v in accuracy.items() if k.startswith("recall · ")]
    assert sum(n for _, n in far) == 4
    alerts = scores["metrics"]["alerts in time"]["all"]
    assert (alerts["sum"], alerts["n"]) == (2, 4)
    (lines,) = bench.submission(rows, "test").values()
    back = {r["question_id"]: r for r in bench.predictions(json.loads(json.dumps(lines)))}
    assert all(back[r["question_id"]]["text"] == r["text"] for r in rows)
    assert sum(ANSWERED_AT in r["meta"] for r in back.values()) == 4
