"""Calls in many threads at once equal the same calls alone, bit for bit: state belongs to the call.

Of the stock models, `model(...)` and `generate` from a whole prompt are safe in threads. A second turn is not on
Qwen-VL: there the stock model reads `rope_deltas`, which it keeps of whatever prompt came last.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from torch import Tensor, nn

from tests.plug.stock import EVERYWHERE, GREEDY, KINDS, clips, inputs, stock_model
from videoprune import Engine, apply, trace
from videoprune.config import PruneConfig
from videoprune.types import VideoFrames

THREADS, CALLS = 16, 10
QUESTIONS = [[7], [8, 9], [10, 11, 12], [13] * 6]


@pytest.fixture(autouse=True)
def crowded():
    """One core for each call, and many changes from thread to thread."""
    cores, interval = torch.get_num_threads(), sys.getswitchinterval()
    torch.set_num_threads(1)
    sys.setswitchinterval(1e-4)
    yield
    torch.set_num_threads(cores)
    sys.setswitchinterval(interval)


def thin(model):
    """Fewer blocks: these tests make many calls."""
    family = model.config.model_type
    core = model.model
    tower = next(getattr(core, n) for n in ("visual", "vision_tower", "vision_model") if hasattr(core, n))
    owner = tower if family.startswith("qwen") else tower.encoder
    name = next(n for n in ("blocks", "layers", "layer") if hasattr(owner, n))
    setattr(owner, name, nn.ModuleList(list(getattr(owner, name))[:4]))
    tower.config.num_hidden_layers = model.config.vision_config.num_hidden_layers = 4
    text = core.text_model if hasattr(core, "text_model") else core.language_model
    text.layers = nn.ModuleList(list(text.layers)[:3])
    text.config.num_hidden_layers = model.config.text_config.num_hidden_layers = 3
    return model


def crowd(call: Callable[[int], object], alone: list, same: Callable[[object, object], bool], calls: int):
    """Every thread runs through all calls, each from another one on. -> what went wrong."""
    barrier, wrong = Barrier(THREADS), []

    def work(thread: int) -> None:
        barrier.wait()
        for i in range(calls):
            which = (thread + i) % len(alone)
            try:
                if not same(call(which), alone[which]):
                    wrong.append(f"call {which}: another result")
            except Exception as error:  # all of them are counted
                wrong.append(f"call {which}: {type(error).__name__}: {error}")

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))
    return wrong


def report(wrong: list[str], calls: int) -> str:
    return f"{len(wrong)} of {THREADS * calls} calls, such as {sorted(set(wrong))[:3]}"


def prompts(kind: str) -> list[dict[str, Tensor]]:
    return [
        inputs(kind, clips(kind, 1, f, seed=f), [q]) for f, q in zip((1, 2, 3, 2), QUESTIONS, strict=True)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_forward(kind):
    model, batches = apply(thin(stock_model(kind)), EVERYWHERE), prompts(kind)

    @torch.no_grad()  # holds for one thread
    def call(i: int) -> Tensor:
        return model(**batches[i]).logits

    wrong = crowd(call, [call(i) for i in range(4)], torch.equal, CALLS)
    assert not wrong, report(wrong, CALLS)


@pytest.mark.parametrize("kind", KINDS)
def test_generate_from_the_prompt_alone(kind):
    model, batches = apply(thin(stock_model(kind)), EVERYWHERE), prompts(kind)

    def call(i: int) -> Tensor:
        return model.generate(**batches[i], **GREEDY, max_new_tokens=3)

    wrong = crowd(call, [call(i) for i in range(4)], torch.equal, 4)
    assert not wrong, report(wrong, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_each_thread_traces_its_own_calls(kind):
    model, batches = apply(thin(stock_model(kind)), EVERYWHERE), prompts(kind)

    @torch.no_grad()
    def call(i: int) -> list[tuple]:
        with trace() as traces:
            model(**batches[i])
        return [(t.dense, t.encoder, t.fused, t.llm_layers) for t in traces]

    alone = [call(i) for i in range(4)]
    assert len({str(t) for t in alone}) >= 3, "clips of three lengths"
    wrong = crowd(call, alone, lambda a, b: a == b, 4)
    assert not wrong, report(wrong, 4)


@pytest.mark.parametrize("name", ["demo", "llava-demo", "qwen-demo"])
def test_two_engines_on_the_same_weights_at_once(name):
    """Two presets, two clips each: encoding and answering, in all threads."""
    first = Engine(name, "balanced", device="cpu", num_frames=2)
    engines = [first, first.with_prune("aggressive")]
    side = (first.frame_size or (56, 56))[0]
    g = torch.Generator().manual_seed(1)
    shown = [torch.randint(0, 256, (2 * f, side, side, 3), generator=g, dtype=torch.uint8) for f in (1, 2)]
    films = [VideoFrames(x, tuple(map(float, range(len(x)))), float(len(x)), "noise", "none") for x in shown]

    def call(i: int) -> tuple:
        engine, film = engines[i % 2], films[i // 2]
        answer = engine.answer(engine.encode([film]), ["What is it?"], max_new_tokens=2)[0]
        return answer.text, answer.trace.fused, answer.trace.llm_layers

    alone = [call(i) for i in range(4)]
    assert alone[0][1:] != alone[1][1:]
    wrong = crowd(call, alone, lambda a, b: a == b, 2)
    assert not wrong, report(wrong, 2)


def test_two_models_with_two_settings_at_once():
    other = PruneConfig.from_dict({"encoder": {"method": "random", "keep": 0.3}})
    models = [apply(thin(stock_model("qwen3_vl")), EVERYWHERE), apply(thin(stock_model("internvl")), other)]
    batches = [prompts("qwen3_vl")[:2], prompts("internvl")[:2]]

    @torch.no_grad()
    def call(i: int) -> Tensor:
        return models[i % 2](**batches[i % 2][i // 2]).logits

    wrong = crowd(call, [call(i) for i in range(4)], torch.equal, 5)
    assert not wrong, report(wrong, 5)
