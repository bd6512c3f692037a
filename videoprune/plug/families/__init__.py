"""The families of stock models that can be pruned, by `config.model_type`."""

from __future__ import annotations

from videoprune.plug.families.llava import LlavaNextVideo, LlavaOnevision
from videoprune.plug.families.pixel_shuffle import InternVL, SmolVLM
from videoprune.plug.families.qwen_vl import QwenVL
from videoprune.plug.families.video_llama3 import VideoLlama3

Family = LlavaOnevision | LlavaNextVideo | QwenVL | InternVL | SmolVLM | VideoLlama3

FAMILIES: dict[str, type[Family]] = {
    kind: family
    for family in (LlavaOnevision, LlavaNextVideo, QwenVL, InternVL, SmolVLM, VideoLlama3)
    for kind in family.model_types
}
