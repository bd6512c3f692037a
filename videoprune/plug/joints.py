"""Every private name of transformers that pruning leans on, looked up once, when it is put on a model.

What is missing is refused by name, before anything of the model is touched; afterwards the code reads `Joints` alone.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import transformers
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from videoprune.tested_versions import TRANSFORMERS

NAME = "videoprune"  # of the attention function of pruned encoders
_CACHE_NAMES = ("cache", "past_key_values")  # the second one up to transformers 5.23
_LAYER_PARTS = ("self_attn", "input_layernorm")
_ATTENTION_PARTS = ("q_proj", "k_proj", "head_dim")
_LAYER_PATHS = ("model.layers", "model.decoder.layers", "layers")


@dataclass(frozen=True)
class Joints:
    """cache_names: what this release calls a text model's KV cache, the name that it uses itself first."""

    cache_names: tuple[str, ...]

    def cache(self, kwargs: Mapping[str, Any]) -> Any:
        """The KV cache among the arguments of a text model; None without one."""
        return next((kwargs[n] for n in self.cache_names if kwargs.get(n) is not None), None)

    def made_cache(self, out: Any) -> Any:
        """The KV cache in the output of a text model; None without one."""
        return getattr(out, self.cache_names[0], None)


def text_joints(language_model: nn.Module) -> Joints:
    """What the text model must have. Raises ValueError that names what is missing."""
    _check_version()
    parameters = inspect.signature(language_model.forward).parameters
    names = tuple(n for n in _CACHE_NAMES if n in parameters)
    if not names:
        raise missing(language_model, "forward(cache=)")
    for layer in decoder_layers(language_model):
        _need(layer, _LAYER_PARTS)
        _need(layer.self_attn, _ATTENTION_PARTS)  # type: ignore[arg-type]
    # Under the name that a release no longer uses, arguments and outputs may still come.
    return Joints((*names, *(n for n in _CACHE_NAMES if n not in names)))


def check_core(core: nn.Module, features: Sequence[str]) -> None:
    """What the inner model must have: features that can be asked for alone, and given to `forward` and `generate`."""
    if "mm_encoder_outputs" not in inspect.signature(core.forward).parameters:
        raise missing(core, "forward(mm_encoder_outputs=)")
    if not any(hasattr(core, name) for name in features):
        raise missing(core, " or ".join(features))


def check_attention(attention: nn.Module) -> None:
    """What an encoder's attention must have: a function that is looked up by the configuration's name for it."""
    _need(attention, ("config",))
    if not hasattr(attention.config, "_attn_implementation"):
        raise missing(attention, "config._attn_implementation")


def register_attention(function: Callable[..., Any]) -> None:
    """Make `function` known as `NAME`, with masks as SDPA takes them: without these, masks would be dropped."""
    AttentionInterface.register(NAME, function)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def decoder_layers(language_model: nn.Module) -> nn.ModuleList:
    """The layers of a text model, or of a causal LM around one. Raises ValueError where there are none."""
    for path in _LAYER_PATHS:
        try:
            found = language_model.get_submodule(path)
        except AttributeError:
            continue
        if isinstance(found, nn.ModuleList):
            return found
    raise missing(language_model, " or ".join(_LAYER_PATHS))


def missing(where: object, name: str) -> ValueError:
    """The error that says what this release of transformers lacks, and which ones work."""
    low, high = TRANSFORMERS
    return ValueError(
        f"transformers {transformers.__version__}: {type(where).__name__} has no {name}; allowed: transformers "
        f"{low} to {high}"
    )


def _need(module: nn.Module, names: Sequence[str]) -> None:
    for name in names:
        if not hasattr(module, name):
            raise missing(module, name)


def _check_version() -> None:
    """An untested newer release may work; older ones lack what is needed, and say so by name."""
    _, high = TRANSFORMERS
    newest = tuple(map(int, high.split(".")))
    if tuple(int(p) for p in transformers.__version__.split(".")[:2] if p.isdigit()) > newest:
        warnings.warn(
            f"transformers {transformers.__version__} is newer than what was tested (up to {high})",
            stacklevel=2,
        )
