"""What `apply` puts on a model: one setting for each instance, copies that stand alone, nothing left behind."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.plug.stock import EVERYWHERE, GREEDY, KINDS, clips, inputs, stock_model
from videoprune import apply, remove
from videoprune.config import PruneConfig

OTHER = PruneConfig.from_dict({"encoder": {"method": "uniform", "keep": 0.4}})


def batch_of(kind: str) -> dict[str, Tensor]:
    return inputs(kind, clips(kind, 1, 2), [[7, 8, 9]])


@torch.no_grad()
def logits(model: Any, batch: dict[str, Tensor]) -> Tensor:
    return model(**batch).logits


def said(model: Any, batch: dict[str, Tensor]) -> Tensor:
    return model.generate(**batch, **GREEDY, max_new_tokens=3)


def copied(model: Any, how: str) -> Any:
    return copy.deepcopy(model) if how == "deepcopy" else pickle.loads(pickle.dumps(model))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
@pytest.mark.parametrize("prune", ["none", EVERYWHERE], ids=["none", "everywhere"])
def test_a_copy_stands_alone_or_is_refused_in_a_sentence(kind, how, prune):
    batch, stock = batch_of(kind), logits(stock_model(kind), batch_of(kind))
    original = apply(stock_model(kind), prune)
    try:
        twin, refusal = copied(original, how), ""
    except (ValueError, TypeError) as error:
        twin, refusal = None, str(error)
    if twin is None:
        assert "remove" in refusal, "refused, but without what to do"
        return
    pruned = logits(original, batch)
    assert torch.equal(logits(twin, batch), pruned)
    apply(twin, OTHER)
    assert torch.equal(logits(original, batch), pruned), "the copy's setting reached the original"
    apply(twin, prune)
    remove(original)
    assert torch.equal(logits(original, batch), stock)
    assert torch.equal(logits(twin, batch), pruned), "the copy leaned on the original"
    assert torch.equal(said(twin, batch), said(apply(stock_model(kind), prune), batch))
    remove(twin)
    assert torch.equal(logits(twin, batch), stock)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_loads_as_stock(kind, tmp_path):
    batch, model = batch_of(kind), apply(stock_model(kind), EVERYWHERE)
    logits(model, batch)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    assert torch.equal(logits(again, batch), logits(stock_model(kind), batch))
    assert "videoprune" not in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_a_refused_apply_leaves_the_old_pruning_on(kind):
    batch, model = batch_of(kind), apply(stock_model(kind), EVERYWHERE)
    before = logits(model, batch)
    vision = next(
        getattr(model.model, n) for n in ("visual", "vision_tower", "vision_model") if hasattr(model.model, n)
    )
    refused = [lambda: apply(model, "no such preset"), lambda: apply(model.model, EVERYWHERE)]
    if kind == "llava_onevision":
        refused.append(lambda: apply(model, OTHER.replace(**{"encoder.method": "meteor"})))
    for wrong in refused:
        with pytest.raises(ValueError, match="allowed"):
            wrong()
        assert torch.equal(logits(model, batch), before)
    with pytest.raises(ValueError, match="allowed"):
        apply(vision, EVERYWHERE)
    assert torch.equal(logits(remove(model), batch), logits(stock_model(kind), batch))


@pytest.mark.parametrize("kind", KINDS)
def test_remove_brings_back_what_the_instances_had(kind):
    """Methods on an instance, of the user or of accelerate, are called while pruned and are there afterwards."""
    batch, model, calls = batch_of(kind), stock_model(kind), []

    def noting(module: Any, name: str) -> Any:
        inner = getattr(module, name)

        def noted(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return inner(*args, **kwargs)

        noted.__wrapped__ = inner  # transformers reads signatures, as functools.wraps lets it
        setattr(module, name, noted)
        return noted

    put = [
        (model, "forward"),
        (model, "generate"),
        (model.model, "forward"),
        (model.model, "get_image_features"),
    ]
    conv = next(m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d)))
    put.append((conv, "forward"))
    for name in ("get_video_features", "pack_image_features", "apply_pooling"):
        put += [(model.model, name)] if hasattr(model.model, name) else []
    made = [(module, name, noting(module, name)) for module, name in put]
    before, stock = logits(model, batch), sorted(calls)
    for prune in (EVERYWHERE, "none", OTHER):
        apply(model, prune)
        calls.clear()
        said(model, batch)
        assert {"forward", "generate"} <= set(calls)
        remove(model)
        for module, name, function in made:
            assert module.__dict__.get(name) is function, f"{type(module).__name__}.{name}"
        calls.clear()
        assert torch.equal(logits(model, batch), before)
        assert sorted(calls) == stock


def tensors_of(model: Any) -> set[int]:
    """All tensors that can be reached from attributes of the model's modules, hooks' closures included."""
    seen: set[int] = set()
    found: set[int] = set()
    todo: list[Any] = [m.__dict__ for m in model.modules()]
    while todo:
        one = todo.pop()
        if id(one) in seen or isinstance(one, type) or type(one).__name__ == "module":
            continue
        seen.add(id(one))
        if isinstance(one, Tensor):
            found.add(id(one))
        elif isinstance(one, dict):
            todo += list(one.values())
        elif isinstance(one, (list, tuple, set)):
            todo += list(one)
        elif callable(one) and getattr(one, "__closure__", None):
            todo += [c.cell_contents for c in one.__closure__ if c.cell_contents is not one]
        elif hasattr(one, "__dict__") and type(one).__module__.startswith("videoprune"):
            todo.append(one.__dict__)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("call", ["forward", "generate", "an error"])
def test_nothing_of_a_call_outlives_it(kind, call):
    model, batch = apply(stock_model(kind), EVERYWHERE), batch_of(kind)
    logits(model, batch)  # what is made once and kept
    model.model.rope_deltas = None  # the stock Qwen-VL's own, of the last prompt
    before, seen = tensors_of(model), []

    def note(module: Any, args: Any, kwargs: Any, out: Any) -> None:
        values = [*args, *kwargs.values(), *(out if isinstance(out, tuple) else (out,))]
        seen.extend(
            weakref.ref(v) for v in values if isinstance(v, Tensor) and not isinstance(v, nn.Parameter)
        )

    text = model.model.text_model if hasattr(model.model, "text_model") else model.model.language_model
    handles = [m.register_forward_hook(note, with_kwargs=True) for m in (*text.layers, text)]
    if call == "an error":
        handles.append(text.layers[3].register_forward_pre_hook(lambda *_: 1 / 0))
        with pytest.raises(ZeroDivisionError):
            logits(model, {k: v.clone() for k, v in batch.items()})
    else:
        (logits if call == "forward" else said)(model, {k: v.clone() for k, v in batch.items()})
    for handle in handles:
        handle.remove()
    gc.collect()
    model.model.rope_deltas = None
    assert seen
    assert not [r for r in seen if r() is not None]
    assert tensors_of(model) == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_peft_model_equals_the_pruned_base_with_its_weights_merged(kind):
    peft = pytest.importorskip("peft")
    torch.manual_seed(3)
    config = peft.LoraConfig(
        r=2, target_modules=r".*(text_model|language_model).*(q_proj|v_proj)", init_lora_weights=False
    )
    wrapped = peft.get_peft_model(stock_model(kind), config).eval()
    batch, off = batch_of(kind), None
    off = logits(wrapped, batch)
    merged = copy.deepcopy(wrapped).merge_and_unload()
    apply(merged, EVERYWHERE)
    assert apply(wrapped, EVERYWHERE) is wrapped
    on = logits(wrapped, batch)
    assert torch.allclose(on, logits(merged, batch), atol=1e-4)
    assert not torch.allclose(on[:, -1], off[:, -1], atol=1e-3)
    assert torch.equal(said(wrapped, batch), said(merged, batch))
    assert torch.equal(logits(remove(wrapped), batch), off)


def placed(accelerate: Any, model: Any, way: str) -> Any:
    if way == "cpu_offload":
        return accelerate.cpu_offload(model, execution_device="cpu")
    return accelerate.dispatch_model(model, {"": "cpu"}, force_hooks=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["cpu_offload", "dispatch_model"])
@pytest.mark.parametrize("first", ["apply", "accelerate"])
@pytest.mark.parametrize("prune", ["none", EVERYWHERE], ids=["none", "everywhere"])
def test_a_model_that_accelerate_placed(kind, way, first, prune):
    accelerate = pytest.importorskip("accelerate")
    batch, plain = batch_of(kind), stock_model(kind)
    off, on = logits(plain, batch), logits(apply(plain, prune), batch)
    words = said(plain, batch)
    model = stock_model(kind)
    if first == "apply":
        model = placed(accelerate, apply(model, prune), way)
    else:
        model = apply(placed(accelerate, model, way), prune)
    # Weights that accelerate holds embed patches by the model's own convolution, which sums in another order.
    assert torch.allclose(logits(model, batch), on, atol=0 if first == "apply" else 1e-5)
    if (kind, way) != (
        "llava_onevision",
        "cpu_offload",
    ):  # there the stock `generate` itself reads a meta tensor
        assert torch.equal(said(model, batch), words)
    remove(model)
    assert torch.equal(logits(model, batch), off)
