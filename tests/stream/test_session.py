"""A stream before the demo models: what arrives frame by frame is answered as the clip that it makes."""

from __future__ import annotations

import threading
from itertools import pairwise

import pytest
import torch

from videoprune import Engine
from videoprune.stream import Cancelled, StreamConfig, StreamSession
from videoprune.types import Sample, VideoFrames

pytestmark = pytest.mark.filterwarnings("ignore:llm.lambda_")
MODELS = ["demo", "llava-demo", "qwen-demo"]
QUESTION = Sample("1", "", "Which colour is the circle?", ("red", "blue", "green", "white"))
ALL = StreamConfig(max_visual_tokens=10_000, still=0.0)


@pytest.fixture(scope="module")
def engines() -> dict[str, Engine]:
    return {name: Engine(name, "balanced", device="cpu") for name in MODELS}


def frames(engine: Engine, count: int, seed: int = 0) -> torch.Tensor:
    size = engine.frame_size or (56, 56)
    made = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *size, 3), generator=made, dtype=torch.uint8)


def watched(engine: Engine, pixels: torch.Tensor, config: StreamConfig = ALL) -> StreamSession:
    session = StreamSession(engine, config)
    for i, one in enumerate(pixels):
        session.add(one, float(i))
    return session


def alone(engine: Engine, pixels: torch.Tensor) -> str:
    """The answer about a clip whose time steps are encoded one by one, as a stream's are."""
    each = engine.weights.frames_per_step
    steps = []
    for start in range(0, len(pixels), each):
        part = pixels[start : start + each]
        clip = VideoFrames(part, tuple(float(start + i) for i in range(len(part))), 1.0, "", "test")
        (encoded,) = engine.encode([clip])
        steps += engine.weights.steps(encoded, clip)
    return engine.answer([engine.weights.of_steps(steps, encoded)], [QUESTION])[0].text


@pytest.mark.parametrize("prune", ["none", "balanced"])
@pytest.mark.parametrize("name", MODELS)
def test_with_room_for_all_it_is_the_clip(engines, name, prune):
    engine = engines[name].with_prune(prune)
    pixels = frames(engine, 7)  # Qwen joins two, and one is left over
    answer = watched(engine, pixels).ask(QUESTION)
    assert answer.text == alone(engine, pixels)
    assert answer.asked_at == 6.0
    if prune == "none":
        clip = VideoFrames(pixels, tuple(map(float, range(7))), 7.0, "", "test")
        assert answer.text == engine.answer(engine.encode([clip]), [QUESTION])[0].text


@pytest.mark.parametrize("prune", ["none", "balanced"])
@pytest.mark.parametrize("name", MODELS)
def test_the_budget_holds_however_long_it_is(engines, name, prune):
    engine = engines[name].with_prune(prune)
    first = watched(engine, frames(engine, 2)).stats()
    budget = 6 * first.tokens
    config = StreamConfig(max_visual_tokens=budget, max_steps=12, window=3, still=0.0)
    session = StreamSession(engine, config)
    for i, one in enumerate(frames(engine, 40)):
        session.add(one, float(i))
        assert session.stats().tokens <= budget
    answer = session.ask(QUESTION)
    stats = session.stats()
    assert stats.arrived > 2 * budget
    assert stats.held_steps <= 12
    assert answer.tokens["resident"] == stats.tokens <= budget
    assert 0 < answer.tokens["llm"] <= budget + 1  # a newline
    assert answer.text  # of places that hold no token nothing is computed: it would be no number
    assert answer.tokens["text"] > 10  # the question's words
    assert answer.cited
    assert all(0 <= a <= b <= 39 for a, b in answer.cited)
    assert set(answer.seconds) == {"queue", "encode", "prefill", "generate"}
    assert all(s >= 0 for s in answer.seconds.values())


def test_what_shows_nothing_new_is_not_encoded(engines):
    engine = engines["llava-demo"]
    session, (one, other) = StreamSession(engine), frames(engine, 2)
    calls: list[int] = []
    handle = engine.model.model.vision_tower.register_forward_pre_hook(lambda *_: calls.append(1))
    noise = torch.randint(-1, 2, one.shape, generator=torch.Generator().manual_seed(1))
    news = [session.add(one, 0.0), session.add((one.int() + noise).clamp(0, 255).to(torch.uint8), 1.0)]
    news += [session.add(other, 2.0), session.add(other, 5.0)]
    handle.remove()
    assert news == [True, False, True, False]
    assert len(calls) == 2
    stats = session.stats()
    assert (stats.frames, stats.still, stats.steps, stats.last) == (4, 2, 2, 5.0)
    assert [(h.first, h.last) for h in session.held()] == [(0.0, 1.0), (2.0, 5.0)]


def test_one_patch_that_changes_is_new(engines):
    engine = engines["llava-demo"]
    session, one = StreamSession(engine), torch.full((96, 96, 3), 90, dtype=torch.uint8)
    session.add(one, 0.0)
    other = one.clone()
    other[40:48, 40:48] += 20
    assert session.add(other, 1.0)


def test_half_a_time_step_counts_too(engines):
    """Qwen joins two frames; the one that waits for another is seen all the same, and encoded again with it."""
    engine, pixels = engines["qwen-demo"], frames(engines["qwen-demo"], 4)
    session = watched(engine, pixels[:3], StreamConfig())
    assert session.stats().steps == 1
    answer = session.ask(QUESTION)
    assert answer.text == alone(engine, pixels[:3])
    assert answer.seconds["encode"] > 0
    session.add(pixels[2], 2.5)  # what is shown stays: still one frame
    session.add(pixels[3], 3.0)
    assert session.stats().steps == 2
    assert [(h.first, h.last) for h in session.held()] == [(0.0, 1.0), (2.0, 3.0)]


def test_questions_that_see_the_same_share_it(engines):
    engine = engines["llava-demo"]
    session, begun = watched(engine, frames(engine, 4)), []
    prefill = engine.weights.prefill
    engine.weights.prefill = lambda *a, **more: begun.append(1) or prefill(*a, **more)  # type: ignore[method-assign]
    try:
        texts = [session.ask(QUESTION).text, session.ask(QUESTION).text]
        assert len(begun) == 1
        session.add(frames(engine, 1, seed=9)[0], 9.0)
        session.ask(QUESTION)
        session.ask(QUESTION, since=9.0)
        assert len(begun) == 3
    finally:
        engine.weights.prefill = prefill  # type: ignore[method-assign]
    assert texts[0] == texts[1]


def test_since_leaves_out_what_was_before(engines):
    engine, pixels = engines["llava-demo"], frames(engines["llava-demo"], 6)
    session = watched(engine, pixels)
    assert session.ask(QUESTION, since=4.0).tokens["resident"] < session.ask(QUESTION).tokens["resident"]
    with pytest.raises(ValueError, match=r"since=7.5; allowed: up to the last frame's second, 5.0"):
        session.ask(QUESTION, since=7.5)


def test_text_comes_as_it_is_made(engines):
    session, texts = watched(engines["demo"], frames(engines["demo"], 2)), []
    answer = session.ask("What moves?", on_text=texts.append, max_new_tokens=6)
    assert texts
    assert all(b.startswith(a) for a, b in pairwise(texts))
    assert texts[-1].strip() == answer.text


def test_a_question_is_taken_back(engines):
    session, seen = watched(engines["llava-demo"], frames(engines["llava-demo"], 2)), []
    with pytest.raises(Cancelled):
        session.ask("What moves?", on_text=seen.append, cancelled=lambda: bool(seen))
    assert len(seen) == 1
    with session._asking, pytest.raises(Cancelled):  # while it waits
        session.ask("What moves?", cancelled=lambda: True)
    assert session.ask(QUESTION).text  # and nothing is stuck


@pytest.mark.parametrize("name", MODELS)
def test_many_frames_at_once_are_one_by_one(engines, name):
    """Among them some that stay, while a pair waits and while none does."""
    engine = engines[name]
    made = frames(engine, 6)
    shown = [made[i] for i in (0, 0, 1, 2, 2, 3, 3, 4, 5, 5)]
    one, many = (
        StreamSession(engine, StreamConfig(max_visual_tokens=600, max_steps=12, window=3)) for _ in "ab"
    )
    given = [(pixels, float(i)) for i, pixels in enumerate(shown)]
    news = [one.add(*frame) for frame in given]
    assert many.add_many(given[:7]) + many.add_many([]) + many.add_many(given[7:]) == news
    a, b = one.stats(), many.stats()
    assert (a.frames, a.still, a.steps, a.tokens, a.last) == (b.frames, b.still, b.steps, b.tokens, b.last)
    for x, y in zip(one.held(), many.held(), strict=True):
        assert (x.first, x.last, x.step.pts_seconds) == (y.first, y.last, y.step.pts_seconds)
        assert torch.equal(x.step.place, y.step.place)
        assert torch.allclose(x.step.x, y.step.x, atol=1e-4)
    assert one.ask(QUESTION).text == many.ask(QUESTION).text


def test_several_ask_while_frames_come(engines):
    engine = engines["llava-demo"]
    config = StreamConfig(max_visual_tokens=200, max_steps=12, window=3, still=0.0)
    session, errors, answers = StreamSession(engine, config), [], []
    pixels = frames(engine, 30)
    session.add(pixels[0], 0.0)

    def asks() -> None:
        try:
            answers.extend(session.ask(QUESTION) for _ in range(5))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=asks) for _ in range(3)]
    for t in threads:
        t.start()
    for i, one in enumerate(pixels[1:], start=1):
        session.add(one, float(i))
    for t in threads:
        t.join()
    assert not errors
    assert len(answers) == 15
    for a in answers:  # of what came later nothing is cited
        assert all(end <= a.asked_at for _, end in a.cited)


def test_frames_of_other_sizes_become_one(engines):
    session = watched(engines["qwen-demo"], frames(engines["qwen-demo"], 2))
    wide = torch.zeros(40, 90, 3, dtype=torch.uint8)
    session.add(wide, 5.0)
    session.add(wide + 99, 6.0)
    assert {h.step.dense for h in session.held()} == {36}


def test_mistakes_are_named(engines):
    session = StreamSession(engines["llava-demo"])
    with pytest.raises(ValueError, match="stream: no frame yet"):
        session.ask("What moves?")
    with pytest.raises(ValueError, match=r"pixels: torch.float32 \(4, 4, 3\); allowed: uint8"):
        session.add(torch.zeros(4, 4, 3), 0.0)
    session.add(frames(engines["llava-demo"], 1)[0], 1.0)
    with pytest.raises(ValueError, match=r"seconds=1.0; allowed: later than the frame before, 1.0"):
        session.add(frames(engines["llava-demo"], 1)[0], 1.0)


@pytest.mark.parametrize("prune", ["none", "balanced"])
@pytest.mark.parametrize("name", ["llava-demo", "qwen-demo"])
def test_only_what_is_new_is_computed(engines, name, prune):
    engine, computed = engines[name].with_prune(prune), list[int]()
    pixels = frames(engine, 10)
    session = watched(engine, pixels[:6])
    first_layer = engine.weights.hooks.door.layers[0]
    with first_layer.register_forward_hook(lambda m, args, out: computed.append(args[0].shape[1])):
        session.ask(QUESTION, max_new_tokens=1)
        before = computed[:]
        for i in range(6, 10):
            session.add(pixels[i], float(i))
        grown = session.ask(QUESTION, max_new_tokens=1)
        after = computed[len(before) :]
    whole = watched(engine, pixels).ask(QUESTION, max_new_tokens=1)
    assert grown.text == whole.text
    assert grown.tokens == whole.tokens
    # A beginning, then the question: the question's tokens are as many as before, the beginning's a part.
    assert len(before) == len(after) == 2
    assert before[1] == after[1]
    assert after[0] < before[0]
    assert grown.trace.llm_layers == whole.trace.llm_layers


def test_what_fades_is_computed_anew(engines):
    engine = engines["llava-demo"]
    first = watched(engine, frames(engine, 2)).stats()
    config = StreamConfig(max_visual_tokens=6 * first.tokens, max_steps=12, window=2, sinks=1, still=0.0)
    session, fresh = StreamSession(engine, config), StreamSession(engine, config)
    for i, one in enumerate(frames(engine, 30)):
        session.add(one, float(i))
        fresh.add(one, float(i))
        said = session.ask(QUESTION)  # with what it knows of the question before
        if i % 7 == 6:
            fresh.forget_beginning()
            assert said.text == fresh.ask(QUESTION).text
