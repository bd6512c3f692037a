"""`Engine` over the demo models and over random shapes of every family: encode once, ask many."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from tests.plug.stock import BUILDERS, KINDS
from videoprune import Engine, remove
from videoprune.models.inputs import PlainInputs
from videoprune.prompts import prompt
from videoprune.types import Answer, Encoded, Sample, VideoFrames

pytestmark = pytest.mark.filterwarnings("ignore:llm.lambda_")
DEMOS = ["demo", "llava-demo", "qwen-demo"]
QUESTIONS = ["What moves?", "Which colour is the square on the left?", "How many?"]


@pytest.fixture(scope="module")
def engines() -> dict[str, Engine]:
    return {name: Engine(name, "balanced", device="cpu", num_frames=4) for name in DEMOS}


def clip(engine: Engine, frames: int = 4, seed: int = 0) -> VideoFrames:
    size = engine.frame_size or (56, 56)
    g = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (frames, *size, 3), generator=g, dtype=torch.uint8)
    return VideoFrames(pixels, tuple(map(float, range(frames))), float(frames), "noise", "none")


def numbers(answer: Answer) -> tuple:
    return answer.trace.dense, answer.trace.encoder, answer.trace.fused, answer.trace.llm_layers


def small(folder: Any, kind: str) -> str:
    """A YAML of a tiny shape, as `random:` reads it."""
    path = folder / f"{kind}.yaml"
    data = json.loads(BUILDERS[kind]().config.to_json_string())
    data["videoprune"] = {"image_size": 56}  # of frames, for encoders that take any
    path.write_text(yaml.safe_dump(data))
    return f"random:{path}"


class Watch(torch.utils._python_dispatch.TorchDispatchMode):
    """Notes operations on frames: uint8 (T, H, W, 3), or however they are turned."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        first = args[0] if args else None
        if isinstance(first, Tensor) and first.dtype == torch.uint8 and first.ndim >= 4:
            self.found.append(str(func))
        return out


@pytest.fixture
def towers_called() -> Iterator[list[str]]:
    called: list[str] = []
    handles = []

    def watch(engine: Engine) -> list[str]:
        for name, module in engine.model.named_modules():
            if isinstance(module, (torch.nn.Conv2d, torch.nn.Conv3d)):
                handles.append(module.register_forward_pre_hook(lambda m, a, n=name: called.append(n)))
        return called

    yield watch  # type: ignore[misc]
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("name", DEMOS)
def test_asking_never_prepares_or_encodes_pixels_again(engines, towers_called, name):
    engine = engines[name]
    called = towers_called(engine)
    (encoded,) = engine.encode([clip(engine)])
    assert called, "no encoder was seen: the test would say nothing"
    assert isinstance(encoded, Encoded)
    called.clear()
    with Watch() as watch:
        answers = engine.answer([encoded], QUESTIONS, max_new_tokens=3)
        engine.text_tokens(encoded, QUESTIONS[0])
    assert len(answers) == len(QUESTIONS)
    assert not called
    assert not watch.found, "frames were read while answering"
    for answer in answers:
        assert set(answer.trace.seconds) <= {"llm", "llm_prune"}
        assert answer.trace.seconds["llm"] > 0
    assert set(encoded.trace.seconds) == {"preprocess", "encode", "encode_prune", "fuse"}
    assert encoded.trace.seconds["preprocess"] > 0
    assert encoded.trace.seconds["encode"] > 0


@pytest.mark.parametrize("name", DEMOS)
def test_questions_together_equal_questions_alone(engines, name):
    engine = engines[name]
    encoded = engine.encode([clip(engine)])
    together = engine.answer(encoded, QUESTIONS, max_new_tokens=4)
    for question, answer in zip(QUESTIONS, together, strict=True):
        (alone,) = engine.answer(encoded, [question], max_new_tokens=4)
        assert alone.text == answer.text
        assert numbers(alone) == numbers(answer)
    assert [a.text for a in engine.answer(encoded, QUESTIONS, max_new_tokens=4)] == [a.text for a in together]


@pytest.mark.parametrize("name", DEMOS)
def test_clips_together_equal_clips_alone(engines, name):
    engine = engines[name]
    shown = (
        [clip(engine, 4, 1), clip(engine, 2, 2)] if name != "demo" else [clip(engine, 4, s) for s in (1, 2)]
    )
    encoded = engine.encode(shown)
    together = engine.answer(encoded, QUESTIONS[:2], max_new_tokens=4)
    for one, question, answer in zip(shown, QUESTIONS, together, strict=False):
        (alone,) = engine.answer(engine.encode([one]), [question], max_new_tokens=4)
        assert (alone.text, *numbers(alone)) == (answer.text, *numbers(answer))
    with pytest.raises(ValueError, match="3 for 2 clips"):
        engine.answer(encoded, QUESTIONS)


@pytest.mark.parametrize("prune", ["none", "balanced"])
@pytest.mark.parametrize("name", DEMOS)
def test_what_questions_share_may_be_kept(engines, name, prune, monkeypatch):
    """Clips of two lengths, asked in any order; the beginnings are computed once, and by settings of the LLM."""
    engine = engines[name].with_prune(prune)
    plain = engine.encode([clip(engine, n, n) for n in ((4, 2) if name != "demo" else (4, 4))])
    kept, computed = engine.prefill(plain), []
    known = type(engine.weights)._prefix
    monkeypatch.setattr(type(engine.weights), "_prefix", lambda *a: computed.append(1) or known(*a))
    asked = [kept[i] for i in (1, 0, 1)]
    together = engine.answer(asked, QUESTIONS, max_new_tokens=4)
    assert not computed
    for one, question, answer in zip((1, 0, 1), QUESTIONS, together, strict=True):
        for clips in ([plain[one]], [kept[one]]):
            (alone,) = engine.answer(clips, [question], max_new_tokens=4)
            assert (alone.text, *numbers(alone)) == (answer.text, *numbers(answer))
    assert not computed  # a question alone has nothing to share
    engine.answer(plain[:1], QUESTIONS, max_new_tokens=1)
    assert len(computed) == 1
    other = engine.with_prune("evoprune" if prune == "balanced" else "aggressive")
    other.answer(kept[:1], QUESTIONS, max_new_tokens=1)  # made for other settings: made anew
    assert len(computed) == 2


def check_trace(encoded: Encoded, answer: Answer) -> None:
    trace = answer.trace
    assert (encoded.trace.dense, encoded.trace.encoder, encoded.trace.fused) == numbers(answer)[:3]
    assert encoded.trace.llm_layers == ()
    assert 0 < trace.fused <= sum(left for _, left in trace.encoder.values()) + 1
    assert all(0 < left <= made for made, left in trace.encoder.values())
    assert trace.llm_layers[0] == trace.fused
    assert list(trace.llm_layers) == sorted(trace.llm_layers, reverse=True)
    assert trace.llm_average == pytest.approx(sum(trace.llm_layers) / len(trace.llm_layers))
    assert trace.retention == pytest.approx(trace.llm_average / trace.dense)
    assert trace.as_dict()["fused"] == trace.fused


@pytest.mark.parametrize("name", DEMOS)
def test_each_engine_keeps_its_own_setting(engines, name):
    """Engines on the same weights, used in turns; the first one is not changed."""
    first = engines[name]
    every = [first, first.with_prune("aggressive"), first.with_prune("none")]
    assert all(e.model is first.model for e in every)
    alone = []
    for prune in ("balanced", "aggressive", "none"):
        engine = Engine(name, prune, device="cpu", num_frames=4)
        encoded = engine.encode([clip(engine)])
        alone.append(engine.answer(encoded, QUESTIONS[:1], max_new_tokens=3)[0])
    assert len({a.trace.fused for a in alone}) == 3
    encoded = [e.encode([clip(e)]) for e in every]  # all encode before any answers
    for i in (2, 0, 1, 0, 2):
        (answer,) = every[i].answer(encoded[i], QUESTIONS[:1], max_new_tokens=3)
        assert (answer.text, *numbers(answer)) == (alone[i].text, *numbers(alone[i]))
        check_trace(encoded[i][0], answer)
    assert set(alone[2].trace.llm_layers) == {alone[2].trace.dense}


@pytest.mark.parametrize("kind", KINDS)
def test_beginnings_of_clips_of_two_lengths_are_those_of_each_alone(kind, tmp_path):
    """Padding in front of the shorter one moves nothing."""
    engine = Engine(small(tmp_path, kind), "balanced", device="cpu", dtype=torch.float32, num_frames=4)
    spread(engine)
    shown = engine.encode([clip(engine, n, n) for n in (4, 2)])
    for together, one in zip(engine.prefill(shown), shown, strict=True):
        (alone,) = engine.prefill([one])
        assert together.prefix.length == alone.prefix.length
        for name in ("places", "visual", "cos", "sin", "arrived"):
            assert torch.allclose(
                getattr(together.prefix, name).float(), getattr(alone.prefix, name).float(), atol=1e-4
            ), name
        for name in ("keys", "values"):
            for a, b in zip(getattr(together.prefix, name), getattr(alone.prefix, name), strict=True):
                assert torch.allclose(a, b, atol=1e-4), name


@pytest.mark.parametrize("kind", KINDS)
def test_keep_all_is_the_stock_model_token_for_token(kind, tmp_path):
    """Over a random shape; what `generate` is given is made by the family's own inputs."""
    engine = Engine(small(tmp_path, kind), "none", device="cpu", dtype=torch.float32, num_frames=2)
    spread(engine)
    film = clip(engine, 2)
    (answer,) = engine.answer(engine.encode([film]), QUESTIONS[:1], max_new_tokens=6)
    plain = PlainInputs(engine.model.config)
    batch = plain([plain.clip(film)], [prompt(Sample("0", "", QUESTIONS[0]))])
    remove(engine.model)
    ids = engine.model.generate(**batch, max_new_tokens=6, do_sample=False)
    assert answer.text == plain.decode(ids[:, batch["input_ids"].shape[1] :])[0]


def spread(engine: Engine) -> None:
    """Untrained weights make all tokens alike; spread them."""
    torch.manual_seed(3)
    for p in engine.model.parameters():
        p.data += torch.randn_like(p) * 0.08


@pytest.mark.parametrize("kind", KINDS)
def test_a_random_shape_prunes_and_answers(kind, tmp_path):
    engine = Engine(small(tmp_path, kind), "balanced", device="cpu", dtype=torch.float32, num_frames=2)
    spread(engine)
    encoded = engine.encode([clip(engine, 2, s) for s in (0, 1)])
    answers = engine.answer(encoded, QUESTIONS[:2], max_new_tokens=3)
    dense = engine.with_prune("none")
    assert dense.encode([clip(dense, 2)])[0].trace.fused == encoded[0].trace.dense
    for one, answer in zip(encoded, answers, strict=True):
        check_trace(one, answer)
        assert answer.text
        assert answer.trace.fused < answer.trace.dense
        assert engine.text_tokens(one, QUESTIONS[0]) > 0
