"""`StockEngine` on a tiny LLaVA-OneVision with its processor, saved and loaded as a user's folder."""

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
from videoprune.engine import Engine, open_engine
from videoprune.prompts import prompt
from videoprune.stock_engine import StockEngine
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


def test_the_engine_is_chosen_by_the_model(folder):
    assert isinstance(open_engine("demo", "none"), Engine)
    engine = open_engine(str(folder), PRUNE)
    assert isinstance(engine, StockEngine)
    assert engine.frame_size == (28, 28)


def test_answers_are_those_of_generate_and_encoding_serves_many_questions(folder):
    engine = StockEngine(str(folder), PRUNE)
    frames, questions = clip(), ["a b c", "d e"]
    tokens, seconds = engine.encode([frames])
    together = engine.answer(tokens, questions, max_new_tokens=5)
    assert seconds["encode"] > 0
    for question, answer in zip(questions, together, strict=True):
        inputs = engine._inputs([frames], [prompt(Sample("0", "", question))])
        with torch.no_grad():
            ids = engine.model.generate(**inputs, max_new_tokens=5, do_sample=False)
        said = engine.inputs.processor.tokenizer.decode(
            ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        assert answer.text == said.strip()
        assert answer.trace.dense == 3 * 16 + 1
        assert answer.trace.encoder == {"vision": (3 * 49, 3 * 24)}
        assert answer.trace.fused == 3 * 8 + 1
        assert answer.trace.llm_layers[-1] < answer.trace.fused


def test_clips_together_equal_clips_alone(folder):
    engine = StockEngine(str(folder), PRUNE)
    clips = [clip(seed=1), clip(seed=2)]
    tokens, _ = engine.encode(clips)
    questions = [Sample("1", "", "a b", ("c", "d")), Sample("2", "", "e")]
    together = engine.answer(tokens, questions, max_new_tokens=4)
    for one, sample, answer in zip(clips, questions, together, strict=True):
        alone = engine.answer(engine.encode([one])[0], [sample], max_new_tokens=4)[0]
        assert (alone.text, alone.choice, alone.trace.llm_layers) == (
            answer.text,
            answer.choice,
            answer.trace.llm_layers,
        )
    with pytest.raises(ValueError, match="3 for 2 clips"):
        engine.answer(tokens, ["a", "b", "c"])


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
