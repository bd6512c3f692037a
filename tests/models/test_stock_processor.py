"""The engine on a tiny LLaVA-OneVision with its own processor, saved and loaded as a user's folder."""

from __future__ import annotations

import json

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    PreTrainedTokenizerFast,
)

from pipelines.cli import main
from tests.plug.stock import IMAGE, VIDEO, stock_model
from videoprune.config import PruneConfig
from videoprune.engine import Engine
from videoprune.models.multi_encoder_model import MultiEncoderModel
from videoprune.models.processor_inputs import ProcessorInputs, video_metadata
from videoprune.models.stock_model import StockVideoModel
from videoprune.plug.apply import apply, remove
from videoprune.plug.current_pass import trace
from videoprune.prompts import prompt
from videoprune.types import Sample, VideoFrames

pytest.importorskip("torchvision")  # the processors of transformers need it: the extra `stock`

PRUNE = PruneConfig.from_dict(
    {"encoder": {"method": "evoprune", "keep": 0.5}, "llm": {"method": "fixed", "keep": 0.7}}
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("llava")
    words = {**{w: i + 1 for i, w in enumerate("abcdefghijklmnopqrstuvwxyz")}, "<pad>": 0, "[UNK]": 27}
    words |= {f"w{i}": i for i in range(28, 64) if i not in (IMAGE, VIDEO)}
    words |= {"<image>": IMAGE, "<video>": VIDEO}
    raw = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", additional_special_tokens=["<image>", "<video>"]
    )
    tokenizer.image_token, tokenizer.video_token = "<image>", "<video>"
    size = {"height": 28, "width": 28}
    processor = LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=[[28, 28]]),
        tokenizer=tokenizer,
        video_processor=LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=49,
        vision_feature_select_strategy="full",
        chat_template="{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'video' %}<video>"
        "{% else %} {{ c['text'] }}{% endif %}{% endfor %}{% endfor %}",
        image_token="<image>",
        video_token="<video>",
    )
    stock_model("llava_onevision").save_pretrained(where)
    processor.save_pretrained(where)
    return where


def clip(frames: int = 3, seed: int = 0) -> VideoFrames:
    g = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (frames, 28, 28, 3), generator=g, dtype=torch.uint8)
    return VideoFrames(pixels, tuple(float(i) for i in range(frames)), float(frames), "clip", "none")


def by_the_processor(engine: Engine, frames: VideoFrames, question: str) -> dict[str, torch.Tensor]:
    """The whole prompt and the clip, as the processor makes them at once."""
    processor = engine.weights.inputs.processor
    message = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]
    made = processor(
        text=[processor.apply_chat_template(message, add_generation_prompt=True)],
        videos=[frames.pixels.permute(0, 3, 1, 2)],
        do_sample_frames=False,
        return_tensors="pt",
    )
    return {k: v for k, v in made.items() if isinstance(v, torch.Tensor)}


def test_the_inputs_are_chosen_by_the_model(folder):
    assert isinstance(Engine("demo", "none", device="cpu").weights, MultiEncoderModel)
    engine = Engine(str(folder), PRUNE)
    assert isinstance(engine.weights, StockVideoModel)
    assert isinstance(engine.weights.inputs, ProcessorInputs)
    assert engine.frame_size == (28, 28)


def test_answers_are_those_of_generate_and_encoding_serves_many_questions(folder):
    engine = Engine(str(folder), PRUNE)
    frames, questions = clip(), ["a b c", "d e"]
    encoded = engine.encode([frames])
    together = engine.answer(encoded, questions, max_new_tokens=5)
    assert encoded[0].trace.seconds["encode"] > 0
    apply(engine.model, PRUNE)
    for question, answer in zip(questions, together, strict=True):
        inputs = by_the_processor(engine, frames, prompt(Sample("0", "", question)))
        with torch.no_grad(), trace() as traces:
            ids = engine.model.generate(**inputs, max_new_tokens=5, do_sample=False)
        said = engine.weights.inputs.processor.tokenizer.decode(
            ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        assert answer.text == said.strip()
        assert answer.trace.as_dict() == traces[0].as_dict()
        assert answer.trace.dense == 3 * 16 + 1
        assert answer.trace.encoder == {"vision": (3 * 49, 3 * 24)}
        assert answer.trace.fused == 3 * 8 + 1
        assert answer.trace.llm_layers[-1] < answer.trace.fused
        assert engine.text_tokens(encoded[0], question) == inputs["input_ids"].shape[1] - answer.trace.dense
    remove(engine.model)


def test_clips_together_equal_clips_alone(folder):
    engine = Engine(str(folder), PRUNE)
    clips = [clip(seed=1), clip(seed=2)]
    encoded = engine.encode(clips)
    questions = [Sample("1", "", "a b", ("c", "d")), Sample("2", "", "e")]
    together = engine.answer(encoded, questions, max_new_tokens=4)
    for one, sample, answer in zip(clips, questions, together, strict=True):
        alone = engine.answer(engine.encode([one]), [sample], max_new_tokens=4)[0]
        assert (alone.text, alone.choice, alone.trace.as_dict()) == (
            answer.text,
            answer.choice,
            answer.trace.as_dict(),
        )
    with pytest.raises(ValueError, match="3 for 2 clips"):
        engine.answer(encoded, ["a", "b", "c"])


def test_a_clip_is_prepared_once_whatever_is_asked(folder, monkeypatch):
    engine, calls = Engine(str(folder), PRUNE), []
    processor = type(engine.weights.inputs.processor)
    stock = processor.__call__
    monkeypatch.setattr(processor, "__call__", lambda *a, **k: calls.append(1) or stock(*a, **k))
    encoded = engine.encode([clip()])
    for question in ("a", "b c d"):
        engine.answer(encoded, [question, "e"], max_new_tokens=1)
    assert len(calls) == 1


@pytest.mark.parametrize("text", ["a b c", "", "d"])
@pytest.mark.parametrize("frames", [2, 4, 5])
def test_prompts_with_times_are_the_processors_own(tmp_path, monkeypatch, text, frames):
    """Qwen3-VL: each time step has its seconds in front, and an envelope."""
    from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    special = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
    words = {w: i for i, w in enumerate(["<pad>", "[UNK]", *"abcdefg<.>", "seconds", *special])}
    words |= {f"{n}": len(words) + n for n in range(40)}
    raw = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Punctuation()
    raw.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation()])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", additional_special_tokens=special
    )
    sizes = {"patch_size": 4, "merge_size": 2, "temporal_patch_size": 2}
    size = {"shortest_edge": 64, "longest_edge": 4096}
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(**sizes),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(**sizes, size=size),
        chat_template="{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'video' %}"
        "<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %} g",
    )
    monkeypatch.setattr(
        "videoprune.models.processor_inputs.AutoProcessor.from_pretrained", lambda _: processor
    )
    inputs, shown = ProcessorInputs("tiny"), clip(frames)
    found = inputs([inputs.clip(shown)], [text])
    message = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": text}]}]
    expected = processor(
        text=[processor.apply_chat_template(message, add_generation_prompt=True)],
        videos=[shown.pixels.permute(0, 3, 1, 2)],
        video_metadata=[video_metadata(shown.pts_seconds, shown.duration_seconds)],
        do_sample_frames=False,
        return_tensors="pt",
    )
    assert int((found["input_ids"] == words["seconds"]).sum()) == -(-frames // 2)
    for name in ("input_ids", "attention_mask", "pixel_values_videos", "video_grid_thw", "mm_token_type_ids"):
        assert (name in found) == (name in expected)
        assert name not in found or torch.equal(found[name], expected[name]), name


def test_ask_takes_a_stock_model(folder, tmp_path, capsys):
    from videoprune.eval.benchmarks.moving_shapes.make import make_benchmark

    data = make_benchmark(tmp_path / "data", clips=1, seed=3)
    video = next((tmp_path / "data").rglob("*.mp4"))
    assert data is not None
    status = main(["ask", str(video), "a b", "--model", str(folder), "--prune", "evoprune", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert status == 0
    assert told["outcome"]["kind"] == "complete"
    assert told["tokens"]["fused"] < told["tokens"]["dense"]
