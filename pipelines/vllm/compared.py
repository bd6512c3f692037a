"""What `speedup --engine vllm` compares: methods that vLLM can serve, by the plug-in, and vLLM's own two, at the same
counts. Nothing of vLLM is imported."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pipelines.measure.methods import method_config, method_names
from pipelines.measure.plan import BASELINE
from pipelines.vllm.settings import serving_settings
from videoprune.config import PruneConfig

OURS = "balanced-serve"
OWN = {"vllm-evs": "evs", "vllm-vidcom2": "vidcom2"}  # as vLLM calls them
OWN_KINDS = ("qwen2_5_vl", "qwen3_vl")  # models that vLLM prunes by itself
METHODS = (BASELINE, OURS, *OWN)
IN_FLIGHT = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Compared:
    """One method at one retention, 1.0 without pruning. prune: what the plug-in does; vLLM's own methods shall keep as
    many tokens."""

    method: str
    retain: float
    prune: PruneConfig

    @property
    def label(self) -> str:
        return self.method if self.method == BASELINE else f"{self.method}@{self.retain:g}"

    @property
    def own(self) -> str:
        """vLLM's name of the method, "" for one of the plug-in."""
        return OWN.get(self.method, "")

    @property
    def digest(self) -> str:
        return f"{self.own}-{self.prune.digest()}" if self.own else self.prune.digest()


def compared(
    methods: Sequence[str] | None, retain: Sequence[float], model_config: Any
) -> tuple[list[Compared], list[dict[str, str]]]:
    """The unpruned model first, then every method at every retention, larger shares first; and what the model cannot do
    of the default methods, with the reason. methods: None: the default.

    Raises ValueError for a named method that cannot be served, with those that can.
    """
    found, refused = [Compared(BASELINE, 1.0, PruneConfig())], []
    for method in (m for m in methods or METHODS if m != BASELINE):
        for share in sorted(retain, reverse=True):
            try:
                found.append(_one(method, share, model_config))
            except ValueError as error:
                if methods is not None:
                    raise ValueError(
                        f"methods={method!r} with --engine vllm: {error}; allowed for this model: "
                        f"{', '.join(_possible(share, model_config))}"
                    ) from None
                refused.append({"method": f"{method}@{share:g}", "reason": str(error)})
    return found, refused


def _one(method: str, share: float, model_config: Any) -> Compared:
    """Raises ValueError for what cannot be served."""
    if method in OWN and model_config.model_type not in OWN_KINDS:
        kinds = " and ".join(OWN_KINDS)
        raise ValueError(f"vLLM prunes {kinds} by itself, and this is {model_config.model_type}")
    prune = method_config(OURS if method in OWN else method, share)
    if prune.llm.method != "none":
        raise ValueError(f"it drops tokens between the LLM's layers (llm.method={prune.llm.method!r})")
    serving_settings(prune.as_dict(), model_config)
    return Compared(method, share, prune)


def _possible(share: float, model_config: Any) -> list[str]:
    found = [BASELINE]
    for method in (*method_names()[1:], *OWN):
        with suppress(ValueError):
            found.append(_one(method, share, model_config).method)
    return found
