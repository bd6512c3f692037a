"""Models of true shape with random weights, and prompts for them: to measure speed without a download.

What such a model answers means nothing; what it computes on is exactly what the trained one would.

Shapes: T frames, H x W pixels, S tokens of the prompt.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import torch
import yaml
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel

from videoprune.config import config_dir
from videoprune.models.inputs import PlainInputs
from videoprune.plug.families import FAMILIES
from videoprune.types import VideoFrames


def shape_names() -> tuple[str, ...]:
    """Names of the shapes in configs/models."""
    return tuple(sorted(p.stem for p in (config_dir() / "models").glob("*.yaml")))


def random_config(shape: str) -> PreTrainedConfig:
    """The configuration of a stock model. shape: a name from configs/models, or a YAML file's path.

    Raises ValueError for an unknown shape, with the known ones.
    """
    path = Path(shape) if shape.endswith((".yaml", ".yml")) else config_dir() / "models" / f"{shape}.yaml"
    if not path.is_file():
        raise ValueError(f"shape={shape!r}; allowed: a YAML file, or {', '.join(shape_names())}")
    data = yaml.safe_load(path.read_text())
    kind = data.pop("model_type")
    if kind not in FAMILIES:
        raise ValueError(f"{path}: model_type={kind!r}; allowed: {', '.join(sorted(FAMILIES))}")
    return CONFIG_MAPPING[kind](**data)


def random_model(
    shape: str,
    *,
    dtype: torch.dtype = torch.bfloat16,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> PreTrainedModel:
    """A stock model with random weights. shape: as `random_config` takes it.

    device: where the weights are made and drawn, which takes seconds on a GPU and minutes on a CPU for 7B of them;
    None: torch's default device. The same seed draws other weights on another kind of device.
    """
    torch.manual_seed(seed)
    config = random_config(shape)
    with torch.device(device) if device is not None else nullcontext():
        return AutoModelForImageTextToText.from_config(config, dtype=dtype).eval()


def random_inputs(
    model: PreTrainedModel,
    num_frames: int,
    *,
    text_tokens: int = 40,
    size: tuple[int, int] = (448, 448),
    clips: int = 1,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Prompts, one for each of `clips` clips: some text, a clip of noise of its own, `text_tokens` tokens of question;
    what the processor would give.

    size: height and width of frames, for models that take any (Qwen-VL, VideoLLaMA3). Raises ValueError if it is
    not a multiple of what the encoder joins.
    """
    own = getattr(model.config.vision_config, "image_size", None)
    plain = PlainInputs(model.config, size=None if own is not None else size)
    generator = torch.Generator().manual_seed(seed)
    times = tuple(map(float, range(num_frames)))
    made = []
    for _ in range(clips):
        pixels = torch.randint(256, (num_frames, *plain.size, 3), generator=generator, dtype=torch.uint8)
        made.append(VideoFrames(pixels, times, float(num_frames), "noise", "random"))
    batch = plain([plain.clip(c) for c in made], [" ".join(["what"] * text_tokens)] * clips)
    return {
        k: v.to(model.device, model.dtype if v.is_floating_point() else v.dtype) for k, v in batch.items()
    }
