"""The entry point of `vllm.general_plugins`: vLLM calls `register` in each of its processes, before it reads a model.

Nothing changes by that until somebody asks for pruning (`settings.wanted`). Then, when vLLM checks its configuration,
what was asked is checked too, written into the model's configuration, which every process gets, and its class
is exchanged for ours, by a name that only we register.
"""

from __future__ import annotations

import os
from typing import Any

from pipelines.vllm.ends_with_parent import watch_parent
from pipelines.vllm.settings import ATTRIBUTE, KEY, VARIABLE, check_engine, serving_settings, wanted

TESTED = ("0.32.0",)  # releases of vLLM
FAMILIES = {
    "LlavaOnevisionForConditionalGeneration": "pipelines.vllm.llava_onevision:PrunedLlavaOnevision",
    "Qwen2_5_VLForConditionalGeneration": "pipelines.vllm.qwen2_5_vl:PrunedQwen2_5VL",
    "Qwen3VLForConditionalGeneration": "pipelines.vllm.qwen3_vl:PrunedQwen3VL",
}
PREFIX = "Videoprune"  # of the names under which our classes are registered


def register() -> None:
    """Raises ValueError, which ends vLLM, if pruning is asked for in the environment and this vLLM was not tested."""
    import vllm
    from vllm import ModelRegistry
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    watch_parent(os.environ)
    if vllm.__version__ not in TESTED and os.environ.get(VARIABLE):
        raise ValueError(untested(vllm.__version__))
    for name, place in FAMILIES.items():
        ModelRegistry.register_model(PREFIX + name, place)
    for name in ModelRegistry.get_supported_archs():
        before = MODELS_CONFIG_MAP.get(name)
        if not isinstance(before, Switch):
            MODELS_CONFIG_MAP[name] = Switch(before)


class Switch:
    """What vLLM asks about the configuration of one kind of model: what it would ask anyway (`before`), then whether
    to prune. Every kind has one, so that asking for what is not there is an error and not a wish."""

    def __init__(self, before: Any) -> None:
        self.before = before

    def verify_and_update_config(self, vllm_config: Any) -> None:
        if self.before is not None:
            self.before.verify_and_update_config(vllm_config)
        switch_on(vllm_config)

    def verify_and_update_model_config(self, model_config: Any) -> None:
        if self.before is not None:
            self.before.verify_and_update_model_config(model_config)


def switch_on(vllm_config: Any) -> None:
    """Prune, if that is asked for. Raises ValueError for what cannot be done."""
    import vllm

    asked = wanted(vllm_config.additional_config, os.environ)
    if asked is None:
        return
    if vllm.__version__ not in TESTED:
        raise ValueError(untested(vllm.__version__))
    model = vllm_config.model_config
    known = [name for name in model.hf_config.architectures or () if name in FAMILIES]
    if not known:
        raise ValueError(
            f"prune={asked!r} for {', '.join(model.hf_config.architectures or ['no architecture'])}; allowed inside "
            f"vLLM: {', '.join(FAMILIES)}"
        )
    settings = serving_settings(asked, model.hf_config)
    if not settings.drops:
        return  # vLLM's own class keeps all
    check_engine(vllm_config)
    if model.hf_config.model_type == "llava_onevision":
        from pipelines.vllm.positions import three_rows

        three_rows(model.hf_config.get_text_config())
    setattr(model.hf_config, ATTRIBUTE, settings.config.as_dict())
    model.hf_config.architectures = [PREFIX + known[0]]
    vllm_config.additional_config = {**vllm_config.additional_config, KEY: {"prune": asked}}


def untested(version: str) -> str:
    return f"vllm {version}: videoprune was tested inside vLLM {', '.join(TESTED)}; allowed: these"
