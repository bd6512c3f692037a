"""Clips together in a call: which they are, and that a call of many is what its clips are alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pipelines.measure.calibration import clips_like
from pipelines.measure.calls import ReadClip, alone, together
from pipelines.measure.timed import timed, tokens_of
from pipelines.run.stages import ClipItem
from videoprune.config import PruneConfig
from videoprune.engine import Engine
from videoprune.types import Sample, VideoFrames


def clip(name, length):
    pixels = torch.zeros(length, 4, 4, 3, dtype=torch.uint8)
    frames = VideoFrames(pixels, tuple(map(float, range(length))), float(length), name, "made")
    return ReadClip(ClipItem(name, (Sample(f"{name}-1", name, "what?"),)), frames, 0.5)


def paths(call):
    return [c.path for c in call.clips]


def test_clips_of_one_length_go_together_and_the_first_come_again():
    clips = [clip("a", 4), clip("b", 3), clip("c", 4)]
    call = together(clips, 2)
    assert paths(call) == ["a", "c"]
    assert call.decode_seconds == 1.0
    assert paths(together(clips, 5)) == ["a", "c", "a", "c", "a"]
    assert together(clips, 5).decode_seconds == 2.5
    assert together([], 2) is None


def test_no_more_clips_are_read_than_are_needed():
    def endless():
        yield clip("a", 4)
        yield clip("b", 4)
        raise AssertionError("one too many")

    assert paths(together(endless(), 2)) == ["a", "b"]


@pytest.mark.parametrize("name", ["llava-demo", "qwen-demo", "tiny"])
def test_many_in_a_call_are_answered_as_alone(name, tiny):
    engine = Engine(str(tiny) if name == "tiny" else name, PruneConfig(), device="cpu")
    pruned = engine.with_prune(
        PruneConfig.from_dict(
            {"encoder": {"method": "divprune", "keep": 0.5}, "llm": {"method": "fixed", "keep": 0.5}}
        )
    )
    clips = [
        ReadClip(ClipItem(str(i), (replace(c.samples[0], question_id=str(i)),)), c.frames, 0.1)
        for i, c in enumerate(clips_like(engine, 3))
    ]
    single = [alone(c) for c in clips]
    said = [pruned.answer(pruned.encode(c.clips), c.samples, max_new_tokens=3)[0] for c in single]
    for count in (2, 4, 8):
        call = together(clips, count)
        answers = pruned.answer(pruned.encode(call.clips), call.samples, max_new_tokens=3)
        chosen = [said[i % len(clips)] for i in range(count)] if count > len(clips) else said[:count]
        assert [a.text for a in answers] == [a.text for a in chosen]
        assert [a.trace.llm_layers for a in answers] == [a.trace.llm_layers for a in chosen]
        row = timed(pruned, call, 3)
        assert row["tokens"]["retention"] == pytest.approx(tokens_of(chosen)["retention"])
        assert row["end_to_end"] == pytest.approx(0.1 * count + row["total"])
