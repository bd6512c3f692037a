"""Find a model by its name, and say what is known of it before its weights are loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig

from videoprune.models.inputs import plain_size
from videoprune.models.multi_encoder_config import MultiEncoderConfig
from videoprune.models.random_weights import random_config
from videoprune.plug.families import FAMILIES
from videoprune.plug.settings import own_settings

RANDOM = "random:"
_SHIPPED = {"demo": "demo", "llava-demo": "llava_demo", "qwen-demo": "qwen_demo"}
_FRAMES = 8  # of a clip, where a model does not say


def demo_names() -> tuple[str, ...]:
    """The models that come with the package: one of several encoders, and two of stock classes."""
    return tuple(_SHIPPED)


def model_folder(name: str) -> Path:
    """A model that comes with the package, or a local folder with config.json. Raises ValueError otherwise."""
    folder = Path(__file__).parent / _SHIPPED[name] if name in _SHIPPED else Path(name)
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"model={name!r}; allowed: {', '.join(_SHIPPED)}, or a folder with config.json (looked in {folder})"
        )
    return folder


def place_of(name: str) -> str:
    """What transformers loads `name` from: a folder, or a name on a hub."""
    return str(model_folder(name)) if name in _SHIPPED else name


def model_config(name: str) -> Any:
    """The configuration of any model that can be pruned: a name on a hub, a folder, a demo model, or `random:` and what
    `random_config` takes. Raises ValueError for what is neither stock nor of several encoders, or is not there."""
    AutoConfig.register(MultiEncoderConfig.model_type, MultiEncoderConfig, exist_ok=True)
    if name.startswith(RANDOM):
        return random_config(name.removeprefix(RANDOM))
    where = place_of(name)
    if not Path(where).is_dir() and "/" not in where:
        model_folder(name)  # says what names there are
    try:
        config = AutoConfig.from_pretrained(where)
    except OSError as error:
        raise ValueError(f"model={name!r}: {str(error).splitlines()[0]}") from error
    if config.model_type != MultiEncoderConfig.model_type and config.model_type not in FAMILIES:
        raise ValueError(
            f"model={name!r}: model_type={config.model_type!r}; allowed: {MultiEncoderConfig.model_type}, "
            f"{', '.join(sorted(FAMILIES))}"
        )
    return config


def stock_config(name: str) -> Any | None:
    """The configuration of a stock model; None if `name` is a model of several encoders. Raises as `model_config`."""
    config = model_config(name)
    return None if config.model_type == MultiEncoderConfig.model_type else config


def clip_shape(name: str, config: Any = None) -> tuple[int, tuple[int, int] | None]:
    """Frames per clip, and the height and width that they are best decoded to; None: as they are, a processor resizes.

    config: of the model, where it is at hand. Raises as `model_config`.
    """
    config = config or model_config(name)
    if config.model_type == MultiEncoderConfig.model_type:
        return config.num_frames, (config.frame_side, config.frame_side)
    own = own_settings(config)
    if "frame_size" in own:
        return own["num_frames"], (own["frame_size"], own["frame_size"])
    resizes = not name.startswith(RANDOM) and getattr(config.vision_config, "image_size", None) is None
    return _FRAMES, None if resizes else plain_size(config)
