"""What a user of vLLM asks for, and what cannot be had there. Nothing of vLLM is imported, nothing heavy unless asked.

`VIDEOPRUNE_PRUNE="balanced-serve encoder.keep=0.5"` in the environment, or the same words in
`--additional-config '{"videoprune": {"prune": "..."}}'`: a preset or a YAML file, then settings that change it. Instead
of words the latter takes what such a file holds too.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from videoprune.config import PruneConfig, preset_names

if TYPE_CHECKING:
    from videoprune.plug.settings import Settings

VARIABLE = "VIDEOPRUNE_PRUNE"
KEY = "videoprune"  # of vLLM's additional_config
ATTRIBUTE = "videoprune_serving"  # of the model's configuration, which vLLM carries to every process
Asked = str | Mapping[str, Any]
SERVING = "-serve"  # how presets without stage 3 end


def wanted(additional_config: Any, environment: Mapping[str, str]) -> Asked | None:
    """What is asked for; None where nothing is. Raises ValueError for another shape of `additional_config`, or if both
    say something and not the same."""
    given = additional_config.get(KEY) if isinstance(additional_config, Mapping) else None
    words = environment.get(VARIABLE) or None
    if given is None:
        return words
    if (
        not isinstance(given, Mapping)
        or set(given) != {"prune"}
        or not isinstance(given["prune"], str | Mapping)
    ):
        raise ValueError(
            f'additional_config[{KEY!r}]={given!r}; allowed: {{"prune": "PRESET part.name=value ..."}}'
        )
    if words is not None and words != given["prune"]:
        raise ValueError(
            f"{VARIABLE}={words!r} with additional_config[{KEY!r}]={given!r}; allowed: one of them"
        )
    found: Asked = given["prune"]
    return found


def serving_settings(asked: Asked, model_config: Any) -> Settings:
    """What is asked for, for the model of transformers' configuration `model_config`.

    Raises ValueError for unknown names and values, for what the model's family cannot do, and for what cannot be done
    where tokens are counted before the encoder has run.
    """
    from pipelines.configuring import load_prune
    from videoprune.plug.apply import settings_of_config
    from videoprune.prune.counts import retained_count

    name, *overrides = (shlex.split(asked) or [""]) if isinstance(asked, str) else ["given"]
    prune = load_prune(name, overrides) if isinstance(asked, str) else PruneConfig.from_dict(asked)
    if prune.llm.method != "none":
        raise ValueError(
            f"prune={name}: llm.method={prune.llm.method!r} drops tokens between the LLM's layers, but vLLM keeps "
            f"as many of them in every layer; allowed: {_instead(name)}"
        )
    retained_count(prune, 2, 64)  # that it is known, whatever the clip
    return settings_of_config(prune, model_config)


def check_engine(config: Any) -> None:
    """Raises ValueError for settings of vLLM (a VllmConfig) that pruning was not made for."""
    parallel, media = config.parallel_config, config.model_config.multimodal_config
    asked = {
        "pipeline_parallel_size": (parallel.pipeline_parallel_size, 1),
        "tensor_parallel_size": (parallel.tensor_parallel_size, 1),
        "prefill_context_parallel_size": (getattr(parallel, "prefill_context_parallel_size", 1), 1),
        "enable_dbo": (bool(getattr(parallel, "enable_dbo", False)), False),
        "speculative_config": (config.speculative_config and "given", None),
        "compile_mm_encoder": (bool(config.compilation_config.compile_mm_encoder), False),
        "mm_encoder_tp_mode": (media.mm_encoder_tp_mode, "weights"),
        "mm_encoder_attn_dtype": (media.mm_encoder_attn_dtype, None),
        "video_pruning_rate": (media.video_pruning_rate or None, None),
    }
    for name, (value, allowed) in asked.items():
        if value != allowed:
            raise ValueError(f"{name}={value!r}; allowed with videoprune inside vLLM: {allowed!r}")


def _instead(name: str) -> str:
    """What to use where a preset prunes inside the LLM."""
    serving = [n for n in preset_names() if n.endswith(SERVING)]
    if name + SERVING in serving:
        return f"{name}{SERVING}, which gives the LLM as many tokens on average by stages 1 and 2 alone"
    return f"llm.method=none, or {', '.join(serving)}"
