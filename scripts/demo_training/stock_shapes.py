"""The demo models of stock classes by name."""

from __future__ import annotations

from demo_training.llava_shape import LlavaShape
from demo_training.qwen_shape import QwenShape

SHAPES = {s.name: s for s in (LlavaShape(), QwenShape())}
