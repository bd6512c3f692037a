"""The split `hard`: what its scenes promise, and that each question has its one answer in what can be seen."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from videoprune.eval.benchmarks.moving_shapes.hard_questions import CATEGORIES, NOT_SHOWN, pick, questions
from videoprune.eval.benchmarks.moving_shapes.hard_scene import SLOTS, HardScene, sample_hard_scene
from videoprune.eval.benchmarks.moving_shapes.load import load
from videoprune.eval.benchmarks.moving_shapes.make import make_benchmark, split_of
from videoprune.eval.benchmarks.moving_shapes.plan import LETTERS, plan_clip
from videoprune.eval.benchmarks.moving_shapes.render import render
from videoprune.eval.benchmarks.moving_shapes.scene import COLORS, SHAPES
from videoprune.video.read import read
from videoprune.video.sample import Sampling


@pytest.fixture(scope="module")
def scenes() -> list[HardScene]:
    rng = np.random.default_rng(11)
    return [sample_hard_scene(rng) for _ in range(60)]


def sampled(scene: HardScene) -> np.ndarray:
    """Seconds of the frames that a model is given."""
    return (np.arange(SLOTS) + 0.5) / SLOTS * scene.duration


def seen(scene: HardScene, name: str) -> list[int]:
    """Frames that show an object called so."""
    return [
        i for i, t in enumerate(sampled(scene)) if any(o.name == name and o.visible(t) for o in scene.objects)
    ]


def second(scene: HardScene, frame: int) -> bool:
    return bool(sampled(scene)[frame] >= scene.cut)


def test_events_last_two_frames_or_a_shot_and_names_are_unique_in_a_shot(scenes: list[HardScene]) -> None:
    for scene in scenes:
        shots = [sum(not second(scene, i) for i in range(SLOTS)), sum(second(scene, i) for i in range(SLOTS))]
        brief = [o.name for o in scene.brief()]
        assert len(brief) in (4, 5)
        assert len(set(brief)) == len(brief)
        for name in {o.name for o in scene.objects}:
            frames = seen(scene, name)
            if name in brief:
                assert len(frames) == 2
                assert frames[1] == frames[0] + 1
                assert second(scene, frames[0]) == second(scene, frames[1])
            else:
                assert len(frames) in (*shots, SLOTS)
        for i in range(SLOTS):
            there = [o.name for o in scene.objects if o.visible(float(sampled(scene)[i]))]
            assert len(set(there)) == len(there)


def test_objects_are_a_patch_wide_and_never_overlap(scenes: list[HardScene]) -> None:
    for scene in scenes:
        for t in sampled(scene):
            there = [o for o in scene.objects if o.visible(float(t))]
            places = np.array([o.position(float(t), scene.duration) for o in there]).reshape(-1, 2)
            assert all(1 / 6 < 2 * o.radius < 1 / 4.5 for o in there)
            for i, a in enumerate(there):
                assert all(o.radius < c < 1 - o.radius for o, p in [(a, places[i])] for c in p)
                for j in range(i):
                    assert np.hypot(*(places[i] - places[j])) > a.radius + there[j].radius


def test_only_a_cut_changes_a_still_clip_and_drawing_shows_who_is_there(scenes: list[HardScene]) -> None:
    for scene in [s for s in scenes if s.still][:6]:
        frames, owner = render(scene, sampled(scene), 112, noise=0.0)
        for i, t in enumerate(sampled(scene)):
            there = {k for k, o in enumerate(scene.objects) if o.visible(float(t))}
            assert set(np.unique(owner[i])) - {-1} == there
        bare = [
            np.where((owner[i] < 0)[..., None], frames[i].astype(int), 0) for i in range(SLOTS)
        ]  # outside objects
        for i in range(1, SLOTS):
            both = (owner[i] < 0) & (owner[i - 1] < 0)
            edge = np.abs(bare[i] - bare[i - 1])[both]
            same = second(scene, i) == second(scene, i - 1)
            assert (np.mean(edge) < 0.3) == same
    assert 15 < sum(s.still for s in scenes) < 45


def test_each_answer_is_what_can_be_seen(scenes: list[HardScene]) -> None:
    rng, asked = np.random.default_rng(5), Counter()
    for scene in scenes:
        for q in questions(scene, rng):
            asked[q.category] += 1
            options = [q.answer, *q.wrong[:3]]
            assert len(set(options)) == 4, q
            assert [_holds(scene, q.category, q.text, o) for o in options] == [True, False, False, False], q
    assert set(asked) == set(CATEGORIES)


def _holds(scene: HardScene, category: str, text: str, option: str) -> bool:
    """Whether an option is true, from what is visible in the sampled frames alone."""
    words = text.rstrip("?").split()
    names = {o.name for o in scene.objects}
    if category == "color":
        found = {n.split()[0] for n in names if n.split()[1] == words[-1]}
        return found == ({option} if option in COLORS else set())
    if category == "shape":
        found = {n.split()[1] for n in names if n.split()[0] == words[4]}
        return found == ({option} if option in SHAPES else set())
    if category == "count":
        late = words[-2] == "second"
        shot = [i for i in range(SLOTS) if second(scene, i) == late]
        return int(option) == sum(set(shot) <= set(seen(scene, n)) for n in names)
    if category == "order":
        frames = {n: seen(scene, n)[0] for n in (o.name for o in scene.brief())}
        chosen = (min if words[-1] == "first" else max)(frames, key=lambda n: frames[n])
        return option == chosen
    if category == "present":
        return option in names
    name = " ".join(words[3:5])
    frames = seen(scene, name)
    if category == "shot":
        shots = {second(scene, i) for i in frames}
        said = {"in the first shot": {False}, "in the second shot": {True}, "in both shots": {False, True}}
        return shots == said.get(option, set())
    if not frames:
        return option == NOT_SHOWN
    (x, y), *_ = [o.start for o in scene.objects if o.name == name]
    return option == f"{'bottom' if y > 0.5 else 'top'} {'right' if x > 0.5 else 'left'}"


def test_most_questions_are_about_short_events_and_a_quarter_about_what_is_not_there() -> None:
    rng, brief, absent, total = np.random.default_rng(6), 0, 0, 0
    for _ in range(300):
        scene = sample_hard_scene(rng)
        moments = {o.name for o in scene.brief()}
        for category in ("color", "shape", "place"):
            q = pick(scene, category, rng)
            if q is None:
                continue
            total += 1
            absent += q.answer == NOT_SHOWN
            words = set(q.text.rstrip("?").split())
            part = {"color": slice(1, 2), "shape": slice(0, 1), "place": slice(0, 2)}[category]
            brief += any(set(n.split()[part]) <= words for n in moments)
    assert 0.18 < absent / total < 0.32
    assert 0.45 < brief / total < 0.8


def test_plan_balances_categories_and_letters_and_depends_on_the_split() -> None:
    plans = [plan_clip(i, 0, "hard") for i in range(140)]
    rows = [row for plan in plans for row in plan.rows]
    assert set(Counter(r["sub_category"] for r in rows).values()) == {60}
    for category in CATEGORIES:
        letters = Counter(r["answer"] for r in rows if r["sub_category"] == category)
        assert letters == dict.fromkeys(LETTERS, 15)
    assert plan_clip(3, 0, "hard") == plans[3]
    assert plan_clip(3, 0).scene != plans[3].scene
    with pytest.raises(ValueError, match="split='soft'; allowed: standard, hard"):
        plan_clip(0, 0, "soft")


def test_files_give_one_frame_of_each_slot(tmp_path: Path) -> None:
    folder = make_benchmark(tmp_path / "hard", clips=3, seed=4, split="hard", size=64, workers=1)
    assert split_of(folder) == "hard"
    samples = load(folder)
    assert len(samples) == 9
    for index in range(3):
        scene = plan_clip(index, 4, "hard").scene
        with av.open(samples[3 * index].video) as container:
            assert container.streams.video[0].average_rate == 16
        frames = read(samples[3 * index].video, Sampling(max_frames=SLOTS))
        slots = [int(t / scene.duration * SLOTS + 1e-6) for t in frames.pts_seconds]
        assert slots == list(range(SLOTS))
