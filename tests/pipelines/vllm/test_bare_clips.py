"""The pair of tokens around a clip goes, and nothing else."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from pipelines.vllm.bare_clips import BareClips
from videoprune.types import VideoFrames

CONFIG = SimpleNamespace(vision_start_token_id=7, video_token_id=8, vision_end_token_id=9)
FRAMES = VideoFrames(torch.zeros(1, 2, 2, 3, dtype=torch.uint8), (0.0,), 1.0, "", "none")


def test_the_pair_goes_and_nothing_else() -> None:
    bare = BareClips(lambda frames, text: {"prompt_token_ids": [1, 7, 8, 9, 2, 7], "more": text}, CONFIG)
    assert bare(FRAMES, "words") == {"prompt_token_ids": [1, 8, 2, 7], "more": "words"}
    assert bare.bare([7, 8, 9]) == [8]
    assert bare.bare([8, 9, 2]) == [8, 9, 2]  # a demo model's prompts
    assert bare.bare([7, 8, 2]) == [7, 8, 2]
