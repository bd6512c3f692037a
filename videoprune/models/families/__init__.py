"""The families of stock models that can be pruned, by `config.model_type`."""

from __future__ import annotations

from videoprune.models.families.base import Family
from videoprune.models.families.llava import LlavaNextVideo, LlavaOnevision
from videoprune.models.families.pixel_shuffle import InternVL, SmolVLM
from videoprune.models.families.qwen_vl import QwenVL
from videoprune.models.families.video_llama3 import VideoLlama3

FAMILIES: dict[str, type[Family]] = {
    kind: family
    for family in (LlavaOnevision, LlavaNextVideo, QwenVL, InternVL, SmolVLM, VideoLlama3)
    for kind in family.model_types
}
