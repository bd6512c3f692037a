"""Prompts of a processor: a clip is prepared once, and each prompt is what the processor would make of the whole.

The processors here are small stand-ins that need no torchvision; `test_stock_processor` has real ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from videoprune.models import processor_inputs
from videoprune.models.inputs import PIXELS, Clip
from videoprune.models.processor_inputs import ProcessorInputs
from videoprune.types import VideoFrames

VIDEO = "<video>"
QUESTIONS = ["what moves ?", "", "w", "<0.5 seconds> is what ?", "no video at all"]


class Words:
    """A tokenizer: a token of its own for each special word, for a space, and for every other word."""

    pad_token_id, padding_side = 0, "right"

    def __init__(self) -> None:
        self.ids: dict[str, int] = {"<pad>": 0}

    def __call__(self, text: str) -> dict[str, list[int]]:
        # As BPE does, a space belongs to the word behind it.
        words = re.findall(r"<[^ <>]+>| ?[^ <>]+| ", text)
        return {"input_ids": [self.ids.setdefault(w, len(self.ids)) for w in words]}

    def batch_decode(self, ids: torch.Tensor, skip_special_tokens: bool = False) -> list[str]:
        names = {i: w for w, i in self.ids.items()}
        return ["".join(names[int(i)] for i in row) for row in ids]


class Processor:
    """Fills the placeholder of a prompt with tokens for the frames.

    template: with `{video}` and `{text}`. placeholder: what the template says of a video. filled: what stands there
    instead, by the number of frames and their seconds.
    """

    def __init__(
        self, template: str, placeholder: str, filled: Callable[[int, list[float]], str], *, types: bool
    ) -> None:
        self.tokenizer = Words()
        self.template, self.placeholder, self.filled, self.types = template, placeholder, filled, types
        self.clips = 0

    def apply_chat_template(self, messages: list[dict[str, Any]], add_generation_prompt: bool) -> str:
        assert add_generation_prompt
        video, text = messages[0]["content"]
        assert video == {"type": "video"}
        return self.template.replace("{video}", self.placeholder).replace("{text}", text["text"])

    def __call__(
        self, *, text: list[str], videos: list[torch.Tensor], video_metadata: list[Any], **kwargs: Any
    ) -> dict[str, Any]:
        assert kwargs == {"do_sample_frames": False, "return_tensors": "pt"}
        self.clips += 1
        (x,), (meta,) = videos, video_metadata
        assert x.shape[1] == 3
        seconds = [i / meta.fps for i in meta.frames_indices]
        ids = self.tokenizer(text[0].replace(self.placeholder, self.filled(len(x), seconds), 1))["input_ids"]
        made: dict[str, Any] = {"pixel_values_videos": x[None].float(), "input_ids": torch.tensor([ids])}
        made["attention_mask"] = torch.ones_like(made["input_ids"])
        made["video_grid_thw"] = torch.tensor([[len(x), 4, 6]])
        made["video_metadata"] = video_metadata  # no tensor: not for the model
        if self.types:
            token = self.tokenizer.ids.get(VIDEO, -1)
            made["mm_token_type_ids"] = (made["input_ids"] == token).int() * 2
        return made


def run(frames: int, seconds: list[float]) -> str:
    return VIDEO * (4 * frames)


def stamps(frames: int, seconds: list[float]) -> str:
    """As Qwen3-VL: two frames a step, its time in front."""
    steps = [(a + b) / 2 for a, b in zip(seconds[::2], seconds[1::2], strict=True)]
    return "".join(f"<{s:.1f} seconds>" + "<start>" + VIDEO * 6 + "<end>" for s in steps)


def images(frames: int, seconds: list[float]) -> str:
    """As InternVL and SmolVLM: other tokens than the placeholder, with words between."""
    return "\n".join(f"Frame{i}: <img>" + "<image>" * 3 + "</img>" for i in range(frames))


CHAT = "<begin>user {video}{text}<over>assistant"
KINDS: dict[str, tuple[str, str, Callable[[int, list[float]], str]]] = {
    "llava": (CHAT, VIDEO, run),
    "words follow at once": ("USER: {video}{text} ASSISTANT:", VIDEO, run),
    "a line between": ("<begin>{video}\n {text}<over>", VIDEO, run),
    "first token": ("{video} {text}<over>", VIDEO, run),
    "last token": ("<begin>{video}{text}", VIDEO, run),
    "alone": ("{video}{text}", VIDEO, run),
    "one token a clip": (CHAT, VIDEO, lambda frames, seconds: VIDEO),
    "run closed by the placeholder": (CHAT, VIDEO, lambda frames, seconds: VIDEO * 3 + "<newline>" + VIDEO),
    "run in an envelope": ("<start>{video}<end>{text}<over>", VIDEO, run),
    "qwen3": ("<begin>user {video}{text}<over>assistant", "<start><video><end>", stamps),
    "qwen3 first": ("{video}{text}<over>", "<start><video><end>", stamps),
    "the envelope is repeated": (
        "<start>{video}<end><end>{text}",
        VIDEO,
        lambda n, s: "<end><start>" * n + VIDEO,
    ),
    "internvl": (CHAT, VIDEO, images),
    "internvl last": ("<begin>{video}{text}", VIDEO, images),
    "more placeholders than frames say": (CHAT, VIDEO + VIDEO, run),
}


@pytest.fixture(params=list(KINDS))
def made(request, monkeypatch) -> tuple[ProcessorInputs, Processor]:
    template, placeholder, filled = KINDS[request.param]
    return inputs_of(Processor(template, placeholder, filled, types=True), monkeypatch)


def inputs_of(processor: Processor, monkeypatch) -> tuple[ProcessorInputs, Processor]:
    monkeypatch.setattr(processor_inputs.AutoProcessor, "from_pretrained", lambda name: processor)
    return ProcessorInputs("a/model"), processor


def clip(frames: int = 4, start: float = 0.0) -> VideoFrames:
    pixels = torch.full((frames, 8, 12, 3), frames, dtype=torch.uint8)
    return VideoFrames(
        pixels, tuple(start + 0.25 + 0.5 * i for i in range(frames)), frames * 0.5, "x", "test"
    )


def whole(processor: Processor, frames: VideoFrames, text: str) -> dict[str, Any]:
    """What the processor itself makes of the clip and the question."""
    message = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": text}]}]
    return processor(
        text=[processor.apply_chat_template(message, add_generation_prompt=True)],
        videos=[frames.pixels.permute(0, 3, 1, 2)],
        video_metadata=[processor_inputs.video_metadata(frames.pts_seconds, frames.duration_seconds)],
        do_sample_frames=False,
        return_tensors="pt",
    )


@pytest.mark.parametrize("text", QUESTIONS)
def test_a_prompt_is_the_processors_own(made, text):
    inputs, processor = made
    frames = clip()
    found, expected = inputs([inputs.clip(frames)], [text]), whole(processor, frames, text)
    for name in ("input_ids", "attention_mask", "mm_token_type_ids", "pixel_values_videos", "video_grid_thw"):
        assert torch.equal(found[name], expected[name]), name
    assert set(found) == set(expected) - {"video_metadata"}


def test_a_clip_is_prepared_once_and_serves_without_its_pixels(made):
    inputs, processor = made
    first, second = clip(4), clip(2, start=7.0)
    clips = [inputs.clip(first), inputs.clip(second)]
    assert processor.clips == 2
    rows = [(0, QUESTIONS[0]), (1, QUESTIONS[0]), (1, QUESTIONS[3]), (0, QUESTIONS[2])]
    bare = [clips[i].without_pixels() for i, _ in rows]
    assert not any(name in one.tensors for one in bare for name in PIXELS)
    batch = inputs(bare, [text for _, text in rows])
    assert processor.clips == 2
    assert "pixel_values_videos" not in batch
    assert batch["video_grid_thw"].tolist() == [[(4, 2)[i], 4, 6] for i, _ in rows]
    for row, (i, text) in enumerate(rows):
        alone = whole(processor, (first, second)[i], text)
        n = alone["input_ids"].shape[1]
        assert torch.equal(batch["input_ids"][row, -n:], alone["input_ids"][0])
        assert (batch["input_ids"][row, :-n] == processor.tokenizer.pad_token_id).all()
        assert batch["attention_mask"][row].tolist() == [0] * (batch["input_ids"].shape[1] - n) + [1] * n
        assert torch.equal(batch["mm_token_type_ids"][row, -n:], alone["mm_token_type_ids"][0])
        assert not batch["mm_token_type_ids"][row, :-n].any()


def test_times_of_the_frames_reach_the_prompt(monkeypatch):
    inputs, processor = inputs_of(Processor(CHAT, "<start><video><end>", stamps, types=False), monkeypatch)
    said = [inputs.decode(inputs([inputs.clip(clip(4, s))], ["?"])["input_ids"])[0] for s in (0.0, 7.0)]
    assert re.findall(r"[\d.]+ seconds", said[0]) == ["0.5 seconds", "1.5 seconds"]
    assert re.findall(r"[\d.]+ seconds", said[1]) == ["7.5 seconds", "8.5 seconds"]
    assert processor.tokenizer.padding_side == "left"


def test_types_are_given_only_where_the_processor_makes_them(monkeypatch):
    inputs, _ = inputs_of(Processor(CHAT, VIDEO, run, types=False), monkeypatch)
    prepared = inputs.clip(clip())
    assert isinstance(prepared, Clip)
    assert prepared.types is None
    assert "mm_token_type_ids" not in inputs([prepared], ["what ?"])


def test_a_processor_that_cannot_be_built_names_the_extra(monkeypatch):
    def missing(name):
        raise ImportError("LlavaOnevisionVideoProcessor requires the Torchvision library")

    monkeypatch.setattr(processor_inputs.AutoProcessor, "from_pretrained", missing)
    with pytest.raises(ImportError, match=r"a/model: its processor .*videoprune\[stock\]"):
        ProcessorInputs("a/model")
