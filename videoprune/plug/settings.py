"""What a configuration means for one model: checked once, before anything of the model is touched."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from videoprune.config import PruneConfig
from videoprune.prune.counts import lambda_is_open, with_fixed_shares


@dataclass(frozen=True)
class Settings:
    """A configuration that a model can run. calibrated: visual tokens that lambda was found for; for other counts it is
    scaled. None: it is not."""

    config: PruneConfig
    calibrated: float | None = None

    @property
    def keep(self) -> float:
        """Share of the tokens that leaves the encoders."""
        return self.config.encoder.keep if self.config.encoder.method != "none" else 1.0

    @property
    def fuse(self) -> float:
        """Share of those that fusion hands to the LLM."""
        return self.config.fusion.keep if self.config.fusion.method != "none" else 1.0

    @property
    def drops(self) -> bool:
        """Whether tokens are lost before the LLM."""
        return self.keep * self.fuse < 1

    @property
    def prunes(self) -> bool:
        return self.drops or self.config.llm.method != "none"

    def lambda_scale(self, visual: Tensor) -> Tensor | None:
        """Factor of lambda for rows with visual tokens visual, bool (B, n): (B,), or None."""
        return None if self.calibrated is None else visual.sum(1) / self.calibrated


def calibration_key(prune: PruneConfig) -> str:
    """Names what a lambda was calibrated for: what arrives, the wanted share, the cuts, how attention is read."""
    encoder, fusion, llm = prune.encoder, prune.fusion, prune.llm
    before = [
        f"{part.method}:{part.keep:g}"
        for part in (encoder, fusion)
        if part.method != "none" and part.keep < 1
    ]
    heads = f"{llm.heads}{llm.top_heads if llm.heads == 'top' else ''}"
    cuts = "-".join(f"{f:g}" for f in llm.layers)
    whose = "" if llm.attention == "next" else f" attention:{llm.attention}"
    return " ".join([*before, f"llm:{llm.keep:g} layers:{cuts} heads:{heads} queries:{llm.queries}{whose}"])


def own_settings(config: Any) -> dict[str, Any]:
    """What this project wrote into a stock configuration: a demo model's frames, a calibrated model's lambdas."""
    return getattr(config, "videoprune", None) or {}


def stock_settings(prune: PruneConfig, model_config: Any) -> Settings:
    """`prune` for a stock model, with the lambda that it was calibrated to.

    Without one, adaptive pruning becomes fixed shares of the same average, and a warning says so; another one names
    settings that mean something between several encoders alone.
    """
    _warn_of_one_encoder(prune)
    if not lambda_is_open(prune.llm):
        return Settings(prune)
    found = own_settings(model_config).get("lambdas", {}).get(calibration_key(prune))
    if found is not None:
        return Settings(prune.replace(**{"llm.lambda_": found["lambda"]}), found["tokens"])
    warnings.warn(
        f"llm.lambda_=null: fixed shares that average llm.keep={prune.llm.keep:g} are used instead of adaptive ones",
        stacklevel=3,
    )
    return Settings(with_fixed_shares(prune))


def _warn_of_one_encoder(prune: PruneConfig) -> None:
    usual = PruneConfig()
    given = {
        "encoder.budget": (prune.encoder.budget, usual.encoder.budget),
        "fusion.redundancy": (prune.fusion.redundancy, usual.fusion.redundancy),
        "fusion.scope": (prune.fusion.scope, usual.fusion.scope),
    }
    idle = [f"{name}={value!r}" for name, (value, default) in given.items() if value != default]
    if idle:
        warnings.warn(f"{', '.join(idle)}: no effect with one encoder", stacklevel=4)
