"""Pieces of the demo models' training on a few clips: that a step runs, and that what it is told is true."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from torch.nn import functional as F
from transformers import AutoModelForImageTextToText, AutoTokenizer

from demo_training.asking import asked, exam, question_blocks
from demo_training.blocks import attend, block_ids
from demo_training.clips import RenderedClips
from demo_training.clips import encode_group as encode_multi
from demo_training.data import frames_of, kept_first
from demo_training.dense import IGNORE, KINDS, STATES, SUMS, DenseHeads, alignment_loss, token_labels
from demo_training.llm import clip_loss, visual_prefix
from demo_training.modes import ENCODER_MODES
from demo_training.multi_encoder import build_model
from demo_training.shapes import checkpoint
from demo_training.stock import build_tokenizers
from demo_training.stock_prompt import Encoded, answer_logits, encode_group, prefix
from demo_training.stock_shapes import SHAPES
from demo_training.text import build_tokenizer
from videoprune.eval.benchmarks.moving_shapes.hard_scene import SHOTS, SLOTS, sample_hard_scene
from videoprune.models.multi_encoder import MultiEncoderVLM

DEMO = Path("videoprune/models/demo")
SHAPE = SHAPES["qwen-demo"]
MOMENT = [*KINDS, *STATES].index("moment")


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    tokenizer = build_tokenizers()
    model = SHAPE.build(tmp_path_factory.mktemp("none"), DEMO, tokenizer)
    SHAPE.trained(model)  # what is trained wants gradients from here on
    return model, tokenizer


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_a_step_of_a_stock_model(qwen, hard, keep):
    model, tokenizer = qwen
    clips = encode_group(SHAPE, model, next(iter(RenderedClips(2, SHAPE.side, 5, hard))), keep)
    heads, rng = DenseHeads(160), np.random.default_rng(0)
    layout = SHAPE.layout(tokenizer, clips[0].scene.duration, frames_of(clips[0].scene))
    start = prefix(SHAPE, model, layout, clips, keep, 0.5)
    texts = question_blocks(tokenizer, clips, rng)
    logits, hidden = answer_logits(SHAPE, model, layout, start, texts.ids, texts.labels, texts.lengths)
    dense, facts = heads.loss(start.z, hidden, start.labels, start.objects)
    words = model.model.language_model.embed_tokens.weight
    aligned, _ = alignment_loss(start.z, words, tokenizer, start.labels)
    (texts.loss(logits) + dense + aligned).backward()
    assert logits.shape[0] == int((texts.labels != IGNORE).sum())
    assert set(texts.right(logits)) == {"options", "open", "listing", *(["look-ups"] if hard else [])}
    assert ("rank" in facts) == hard
    trained = [p for part in SHAPE.trained(model) for p in part.parameters()]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)
    model.zero_grad()


@pytest.mark.parametrize("hard", [False, True])
def test_a_step_of_the_model_with_several_encoders(hard):
    model = MultiEncoderVLM.from_pretrained(DEMO, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(DEMO)
    clips = encode_multi(model, next(iter(RenderedClips(2, 112, 5, hard))), ENCODER_MODES["evo50"])
    heads, rng = DenseHeads(model.config.text_config["hidden_size"]), np.random.default_rng(0)
    loss, answers, known = clip_loss(model, heads, tokenizer, clips, "cooperative", 120, rng)
    assert loss.isfinite()
    assert ("rank" in known) == hard
    if not hard:
        assert answers["loss"] < 1  # a trained model: what it is asked is what it learned


@pytest.mark.parametrize("pick", ["random", "objects"])
def test_the_model_with_several_encoders_is_left_what_is_shown_for_a_moment(pick):
    model = MultiEncoderVLM.from_pretrained(DEMO, dtype=torch.float32)
    clips = encode_multi(model, next(iter(RenderedClips(2, 112, 7, True))), ENCODER_MODES["none"])
    _, labels, _ = visual_prefix(model, clips, pick, 300)
    for clip, told in zip(clips, labels, strict=True):
        brief = sum(int(kept_first(clip.scene, o).sum()) for o in clip.owner.values())
        assert 0 < brief < 300
        assert int((told[:, MOMENT] == 1).sum()) == brief


@pytest.mark.parametrize("hard", [False, True])
def test_an_exam_in_one_pass_says_what_a_pass_for_each_question_says(qwen, hard):
    model, tokenizer = qwen
    (clip,) = encode_group(SHAPE, model, next(iter(RenderedClips(1, SHAPE.side, 11, hard))), 1.0)
    layout = SHAPE.layout(tokenizer, clip.scene.duration, frames_of(clip.scene))
    start = prefix(SHAPE, model, layout, [clip], 1.0, 0.0)
    seen = []

    def answer(ids, labels, lengths):
        logits, _ = answer_logits(SHAPE, model, layout, start, ids, labels, lengths)
        for text, told in zip(ids.split(lengths, 1), labels.split(lengths, 1), strict=True):
            one, _ = answer_logits(SHAPE, model, layout, start, text, told, [text.shape[1]])
            seen.append(one.argmax(-1).tolist() == told[told != IGNORE].tolist())
        return logits

    with torch.no_grad():
        found = list(exam(tokenizer, clip.scene, np.random.default_rng(3), answer))
    assert [right for _, right in found] == seen
    assert [c for c, _ in found] == [q.category for q in asked(clip.scene, np.random.default_rng(3))]


def test_what_is_shown_for_a_moment_is_never_dropped(qwen):
    model, tokenizer = qwen
    clips: list[Encoded] = encode_group(SHAPE, model, next(iter(RenderedClips(2, SHAPE.side, 7, True))), 1.0)
    layout = SHAPE.layout(tokenizer, clips[0].scene.duration, SLOTS)
    for drop in (0.3, 0.8):
        start = prefix(SHAPE, model, layout, clips, 1.0, drop)
        for clip, labels in zip(clips, start.labels, strict=True):
            brief = int(kept_first(clip.scene, clip.owner).sum())
            assert brief > 0
            assert int((labels[:, MOMENT] == 1).sum()) == brief


def test_labels_of_sums_are_what_a_look_at_the_scene_says():
    scene = sample_hard_scene(np.random.default_rng(3))
    names = list(SUMS)
    owner = torch.arange(len(scene.objects))
    late = torch.full_like(owner, SLOTS - 1)
    labels = token_labels(scene, owner, late)[:, -len(names) :]
    brief = [o.name for o in scene.brief()]
    for obj, row in zip(scene.objects, labels.tolist(), strict=True):
        found = dict(zip(names, row, strict=True))
        second = obj.appears >= scene.cut
        assert found["rank"] == (brief.index(obj.name) if obj in scene.brief() else IGNORE)
        assert found["again"] == (int(len(scene.shots_of(obj.name)) == 2) if second else IGNORE)
        assert found["staying"] == len(scene.steady(SHOTS[int(second)])) - 1
    early = token_labels(scene, owner, torch.zeros_like(owner))
    assert set(early[:, -1].tolist()) == {IGNORE}  # nobody can tell in the first frame


def test_an_encoder_that_was_not_trained_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="stock-encoder --only llava-demo"):
        checkpoint(tmp_path, "llava-demo-vision.pt")


@pytest.mark.parametrize("lengths", [[5], [1, 7, 3], [2, 2, 2]])
@pytest.mark.parametrize("beginning", [1, 6])
def test_attention_by_blocks_is_that_of_a_dense_mask(lengths, beginning):
    torch.manual_seed(0)
    ids = block_ids(beginning, lengths)
    q = torch.randn(2, 4, len(ids), 8, requires_grad=True)
    k, v = (torch.randn(2, 2, len(ids), 8, requires_grad=True) for _ in "kv")
    seen = torch.tensor([[b == a or b == 0 for b in ids] for a in ids]).tril()
    want = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True).transpose(1, 2)
    found, _ = attend(torch.nn.Module(), q, k, v, ids)
    torch.testing.assert_close(found, want)
    weight = torch.randn_like(want)
    for one, other in zip(
        torch.autograd.grad((found * weight).sum(), (q, k, v)),
        torch.autograd.grad((want * weight).sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_a_stock_models_llm_is_taken_over_whole():
    folder, tokenizer = Path("videoprune/models/qwen_demo"), build_tokenizer()
    model = build_model(Path("no-encoders"), tokenizer, DEMO, folder)
    source = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    core, given = model.language_model.model, source.model.language_model
    assert len(core.layers) > len(given.layers)
    text = "What color is the circle?\nA. red\nB. blue\nAnswer:"
    ids = [torch.tensor([t(text)["input_ids"]]) for t in (tokenizer, AutoTokenizer.from_pretrained(folder))]
    torch.testing.assert_close(core(ids[0]).last_hidden_state, given(ids[1]).last_hidden_state)
