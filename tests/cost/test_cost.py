"""Reckoned operations against counted ones, on every family: unpruned, pruned, true shapes without their weights."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText

from pipelines.measure.cost import Prompt
from pipelines.measure.cost import predict as predict_prompt
from tests.models.tiny import random_clip, tiny_model
from tests.plug.stock import BUILDERS, clips, inputs, stock_model
from videoprune.config import PruneConfig, config_dir
from videoprune.cost.operations import (
    block_flops,
    decode_flops,
    flop_ideal,
    head_flops,
    kv_bytes,
    prefill_flops,
    vision_flops,
)
from videoprune.cost.shapes import LanguageShape, VisionShape
from videoprune.cost.token_flow import token_flow
from videoprune.models.random_weights import random_inputs, shape_names
from videoprune.models.shapes import language_shape, model_shape
from videoprune.plug.apply import apply
from videoprune.plug.current_pass import trace
from videoprune.plug.encoder_pass import EncoderPass

KINDS = sorted(BUILDERS)
WITHIN = 0.02
SIZE = (24, 32)  # pixels of the packed families' frames in tests.plug.stock
EVO = {"method": "evoprune", "keep": 0.25, "schedule": "mean"}
FIXED = {"method": "fixed", "keep": 0.6, "layers": [0.2, 0.6]}
CONFIGS = {
    "evoprune": {"encoder": EVO, "llm": FIXED},
    "keys, protected": {
        "encoder": {**EVO, "metric": "keys", "lambda_div": 0.0, "critical_ratio": 0.4},
        "llm": {**FIXED, "queries": "last"},
    },
    "meteor": {"encoder": {"method": "meteor", "keep": 0.25}},
    "a constant r": {"encoder": {"method": "tome", "keep": 0.25}, "llm": FIXED},
    "what changed over the clip": {"encoder": {"method": "dycoke", "keep": 0.8}},
    "random": {"encoder": {"method": "random", "keep": 0.25}, "llm": {**FIXED, "method": "random"}},
    "previous layer": {"encoder": EVO, "llm": {**FIXED, "queries": "last", "attention": "previous"}},
    "aim": {"llm": {**FIXED, "method": "aim", "ratios": [0.4, 0.0], "attention": "previous"}},
    "over the clip": {"encoder": {"method": "divprune", "keep": 0.25}, "llm": FIXED},
    "over the clip, by attention and keys": {"encoder": {"method": "visionzip", "keep": 0.25}},
    "a control, then the clip": {
        "encoder": {"method": "uniform", "keep": 0.5},
        "fusion": {"method": "cooperative", "keep": 0.5},
    },
    "over time, where nothing stands still": {"encoder": {**EVO, "keep": 0.5, "temporal": 1.0, "still": 1.0}},
    "as two stages": {"encoder": {**EVO, "keep": 0.5}, "fusion": {"method": "cooperative", "keep": 0.6}},
}


@contextmanager
def counted():
    """A counter that knows the fused attention of CPUs too, which torch's own leaves out."""

    def attention(q, k, v, *args, out_shape=None, **kwargs):
        return sdpa_flop_count(q, k, v)

    fused = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}
    with FlopCounterMode(display=False, custom_mapping=fused) as counter, torch.no_grad():
        yield counter


def video_frames(kind: str) -> int:
    return 6 if kind.startswith("qwen") else 3  # Qwen-VL joins two of them


def predict(shape, frames, tokens, config, *, question_tokens=None, size=None, **more):
    return predict_prompt(shape, Prompt(frames, tokens, question_tokens, size), config, **more)


def expected(model, batch, config, **more):
    kind = model.config.model_type
    # Behind the last frame of Qwen3-VL stands a marker.
    more.setdefault("question_tokens", 4 if kind == "qwen3_vl" else 3)
    shape, prompt = model_shape(model.config), batch["input_ids"].shape[1]
    return predict(shape, video_frames(kind), prompt, config, size=SIZE, **more)


def batch_for(kind: str):
    return inputs(kind, clips(kind, 1, 3), [[7, 8, 9]])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_unpruned_model(kind, attention):
    model, batch = stock_model(kind, attention), batch_for(kind)
    with counted() as counter:
        model(**batch, logits_to_keep=1)
    cost = expected(model, batch, PruneConfig())
    assert cost.pruning == 0
    assert cost.first_token == pytest.approx(counter.get_total_flops(), rel=WITHIN)
    by_module = counter.get_flop_counts()
    language = next(k for k in by_module if k.endswith((".language_model", ".text_model")))
    assert sum(cost.prefill) == pytest.approx(sum(by_module[language].values()), rel=WITHIN)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CONFIGS)
def test_pruned_models(kind, name):
    if kind == "llava_onevision" and name == "meteor":
        pytest.skip("refused by apply")
    config = PruneConfig.from_dict(CONFIGS[name])
    model, batch = wide_windows() if kind == "qwen2_5_vl" else stock_model(kind), batch_for(kind)
    apply(model, config)
    with counted() as counter, trace() as found:
        model(**batch, logits_to_keep=1)
    cost, dense = expected(model, batch, config), expected(model, batch, PruneConfig())
    assert cost.first_token == pytest.approx(counter.get_total_flops(), rel=WITHIN)
    assert flop_ideal(dense, cost) > 1.0
    frames, prompt = video_frames(kind), batch["input_ids"].shape[1]
    flow = token_flow(model_shape(model.config), config, frames, prompt_tokens=prompt, size=SIZE)
    assert flow.visual == found[0].llm_layers


def wide_windows():
    """Which windows the survivors lie in is decided by the pixels; in a wide model that moves little."""
    config = stock_model("qwen2_5_vl").config
    config.vision_config.hidden_size = 256
    config.vision_config.intermediate_size = 512
    torch.manual_seed(0)
    return AutoModelForImageTextToText.from_config(config).eval()


def test_windows_as_they_were(monkeypatch):
    """Given the windows of a run, its blocks are reckoned exactly; only padding to the longest is on top."""
    seen: list[tuple[int, ...]] = []
    stretches = EncoderPass.stretches
    monkeypatch.setattr(
        EncoderPass,
        "stretches",
        lambda self, windowed: seen.append(tuple(stretches(self, windowed))) or seen[-1],
    )
    model, batch = stock_model("qwen2_5_vl"), batch_for("qwen2_5_vl")
    apply(model, PruneConfig.from_dict({"encoder": EVO}))
    with counted() as counter:
        model(**batch, logits_to_keep=1)
    padded = [(max(s),) * len(s) for s in seen]
    assert padded != seen, "windows should differ in length"
    shape = model_shape(model.config).encoders[0]
    attention = [
        block_flops(shape, p) - block_flops(shape, (1,) * sum(p)) + 4 * sum(p) * shape.width for p in padded
    ]
    linear = sum(block_flops(shape, (1,) * sum(s)) - 4 * sum(s) * shape.width for s in seen)
    patches = 3 * 48
    embedding = 2 * patches * shape.patch_inputs * shape.width
    blocks = [
        v
        for k, v in counter.get_flop_counts().items()
        if ".visual.blocks." in k and k.endswith(("attn", "mlp"))
    ]
    # Choosing runs in hooks around the blocks, so the modules inside them hold nothing but their own work.
    assert sum(sum(v.values()) for v in blocks) == linear + sum(attention)
    assert vision_flops(shape, patches, seen) <= embedding + linear + sum(attention)


@pytest.mark.parametrize(
    "prune", ["none", "evoprune", "tome", "meteor", "random", "over the clip", "dycoke", "all stages"]
)
def test_several_encoders(prune):
    stages = {"encoder": EVO, "fusion": {"method": "cooperative", "keep": 0.6}, "llm": FIXED}
    meteor = {
        "encoder": {"method": "meteor", "keep": 0.3, "budget": "rank"},
        "fusion": {**stages["fusion"], "scope": "clip"},
    }
    made = {
        "none": {},
        "evoprune": {"encoder": EVO},
        "tome": {"encoder": {"method": "tome", "keep": 0.25}},
        "dycoke": {"encoder": {"method": "dycoke", "keep": 0.8}, "fusion": stages["fusion"]},
        "meteor": meteor,
        "random": CONFIGS["random"],
        "over the clip": {**CONFIGS["over the clip"], "fusion": stages["fusion"]},
        "all stages": stages,
    }
    config = PruneConfig.from_dict(made[prune])
    model, frames = tiny_model(("siglip", "clip", "dinov2", "convnext")), 3
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    with counted() as counter, trace() as found:
        tokens = model.encode([random_clip(frames)], config)
        model.generate(ids, torch.ones_like(ids), tokens, settings=model.settings(config), max_new_tokens=1)
    shape = model_shape(model.config)
    prompt = frames * sum(e.dense for e in shape.encoders) + 5
    cost = predict(shape, frames, prompt, config)
    flow = token_flow(shape, config, frames, prompt_tokens=prompt)
    assert flow.visual == found[0].llm_layers
    assert model.retained_count(frames, config)["encoders"] == sum(e.left for e in flow.encoders)
    assert cost.first_token == pytest.approx(counter.get_total_flops(), rel=WITHIN)
    assert len(cost.encoder) == 4


@pytest.mark.parametrize("kind", ["llava_onevision", "qwen3_vl"])
def test_decoding_and_the_cache_of_a_pruned_run(kind):
    config = PruneConfig.from_dict(CONFIGS["evoprune"])
    model, batch = apply(stock_model(kind), config), batch_for(kind)
    with torch.no_grad():
        one = model.generate(**batch, max_new_tokens=1, return_dict_in_generate=True)
    cost = expected(model, batch, config, bytes_per_value=4)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in one.past_key_values.layers)
    assert cost.kv_bytes == held
    totals = []
    for new in (1, 2):
        with counted() as counter:
            model.generate(**batch, max_new_tokens=new)
        totals.append(counter.get_total_flops())
    assert cost.decode == pytest.approx(totals[1] - totals[0], rel=WITHIN)
    assert cost.as_dict(2)["total"] == pytest.approx(totals[1], rel=WITHIN)


def on_meta(name: str, **changes):
    data = yaml.safe_load((config_dir() / "models" / f"{name}.yaml").read_text())
    config = CONFIG_MAPPING[data.pop("model_type")](**data)
    for key, value in changes.items():
        setattr(config.vision_config, key, value)
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16).eval()


@pytest.mark.parametrize("name", shape_names())
def test_the_llm_of_true_shapes(name):
    model = on_meta(name)
    shape, tokens = model_shape(model.config), 1500
    text = language_shape(model.config)
    assert text == shape.language
    core = model.model
    llm = core.language_model if hasattr(core, "language_model") else core.text_model
    with counted() as counter:
        x = torch.empty(1, tokens, text.hidden, dtype=torch.bfloat16, device="meta")
        model.lm_head(llm(inputs_embeds=x).last_hidden_state[:, -1:])
    reckoned = sum(prefill_flops(text, [tokens] * text.layers)) + head_flops(text)
    assert reckoned == pytest.approx(counter.get_total_flops(), rel=WITHIN)


@pytest.mark.parametrize(
    "name", ["internvl3-1b", "llava-next-video-7b", "llava-onevision-0.5b", "llava-onevision-7b"]
)
def test_the_encoder_of_true_shapes(name):
    model, frames = on_meta(name), 4
    shape = model_shape(model.config)
    side = shape.encoders[0].grid[0] * shape.encoders[0].patch_size
    images = torch.empty(frames, 3, side, side, dtype=torch.bfloat16, device="meta")
    kind, pixels = ("image", images) if "internvl" in name else ("video", images[None])
    with counted() as counter:
        getattr(model.model, f"get_{kind}_features")(pixels)
    cost = predict(shape, frames, 10_000, PruneConfig())
    assert sum(cost.encoder) + cost.projector == pytest.approx(counter.get_total_flops(), rel=WITHIN)


@pytest.mark.parametrize("name", ["qwen2.5-vl-3b", "qwen3-vl-2b", "smolvlm2-0.5b", "video-llama3-2b"])
def test_two_blocks_of_true_width(name):
    """These look at their input's values, so they must run: on small frames, through two blocks."""
    fewer = {"depth": 2, "fullatt_block_indexes" if "2.5" in name else "deepstack_visual_indexes": [1]}
    model = on_meta(name, **(fewer if name.startswith("qwen") else {"num_hidden_layers": 2}))
    config, core, size = model.config, model.model, (112, 224) if "qwen3" not in name else (128, 256)
    tower = core.visual if hasattr(core, "visual") else core.vision_model
    model.model.language_model = torch.nn.Identity()
    for part in (tower, getattr(core, "connector", None), getattr(core, "projector", None)):
        if part is not None:
            part.to_empty(device="cpu").float()
    shape = model_shape(config)
    batch = random_inputs(_Like(config), 2, size=size)
    given = {k: v for k, v in batch.items() if k.startswith(("pixel", "video_"))}
    kind = "video" if "pixel_values_videos" in given else "image"
    with counted() as counter:
        getattr(core, f"get_{kind}_features")(**given)
    cost = predict(shape, 2, 10_000, PruneConfig(), size=size)
    assert sum(cost.encoder) + cost.projector == pytest.approx(counter.get_total_flops(), rel=WITHIN)


class _Like:
    """What `random_inputs` asks of a model."""

    def __init__(self, config):
        self.config, self.device, self.dtype = config, "cpu", torch.float32


def slow_attention(tokens: int, width: int, *, causal: bool) -> int:
    return sum(4 * width for q in range(tokens) for k in range(tokens) if not causal or k <= q)


def test_formulas_against_loops():
    llm = LanguageShape(layers=2, hidden=6, heads=4, kv_heads=2, head_dim=3, mlp=10, vocab=17)
    weights = 6 * 12 + 2 * 6 * 6 + 12 * 6 + 3 * 6 * 10  # queries, keys and values, output, MLP
    for causal in (False, True):
        wanted = tuple(2 * n * weights + slow_attention(n, 12, causal=causal) for n in (5, 3))
        assert prefill_flops(llm, (5, 3), causal=causal) == wanted
    assert head_flops(llm, 3) == 3 * 2 * 6 * 17
    assert decode_flops(llm, (5, 3)) == 2 * 2 * weights + 4 * 12 * (6 + 4) + 2 * 6 * 17
    assert kv_bytes(llm, (5, 3), 2) == 2 * 2 * 3 * 2 * 8
    vit = VisionShape("v", 2, 2, 8, 2, 20, 3, 48, 4, (2, 2))
    each = 4 * 64 + 3 * 8 * 20
    windows = sum(slow_attention(n, 8, causal=False) for n in (3, 1))
    assert block_flops(vit, (3, 1)) == 2 * 4 * each + windows
    assert vision_flops(vit, 4, [(4,), (3, 1)]) == 2 * 4 * 48 * 8 + block_flops(vit, (4,)) + block_flops(
        vit, (3, 1)
    )


def test_measured_layers_replace_the_wanted_ones():
    model, batch = stock_model("internvl"), batch_for("internvl")
    config = PruneConfig.from_dict(
        {"encoder": EVO, "llm": {"method": "adaptive", "keep": 0.6, "layers": [0.2, 0.6]}}
    )
    measured = expected(model, batch, config, visual_by_layer=[6, 5.4, 5, 2, 1])
    text = batch["input_ids"].shape[1] - 27
    assert measured.prefill == prefill_flops(
        language_shape(model.config), [text + n for n in (6, 5, 5, 2, 1)]
    )
    assert expected(model, batch, config).prefill != measured.prefill


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"frames": 5}, "frames=5"),
        ({"frames": 0}, "frames=0"),
        ({"prompt": 36}, "prompt_tokens=36"),
        ({"size": (20, 32)}, r"size=\(20, 32\)"),
        ({"size": None}, "size=None"),
        ({"visual_by_layer": [1.0]}, "visual_by_layer"),
    ],
)
def test_what_does_not_fit_is_named(change, said):
    shape = model_shape(stock_model("qwen2_5_vl").config)
    args = {"frames": 6, "prompt": 50, "size": SIZE, "visual_by_layer": None, **change}
    with pytest.raises(ValueError, match=said):
        predict(
            shape,
            args["frames"],
            args["prompt"],
            PruneConfig(),
            size=args["size"],
            visual_by_layer=args["visual_by_layer"],
        )


def test_wrong_rows_and_models_are_named():
    llm = LanguageShape(2, 6, 4, 2, 3, 10, 17)
    with pytest.raises(ValueError, match="3 counts"):
        kv_bytes(llm, (1, 2, 3))
    with pytest.raises(ValueError, match="1 rows"):
        vision_flops(VisionShape("v", 2, 2, 8, 2, 20, 2, 48, 4, (2, 2)), 4, [(4,)])
    with pytest.raises(ValueError, match="model_type='qwen2'"):
        model_shape(stock_model("internvl").config.text_config)
