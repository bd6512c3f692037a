"""Methods at a wanted retention: what `videoprune speedup` compares.

Retention is the number of visual tokens averaged over the LLM's layers, over the dense count.
"""

from __future__ import annotations

import math

from videoprune.config import PruneConfig, preset, preset_names

OURS = ("videoprune", "evoprune", "meteor")
_STEPS = ("light", "balanced", "aggressive")  # what `videoprune` is where it was tuned
_OTHER_SHARES = (*_STEPS, "light-serve", "aggressive-serve")  # of `videoprune` and `balanced-serve`
MATCHED = "videoprune-random"
_NEAR = 0.005


def method_names() -> tuple[str, ...]:
    return ("none", "videoprune", MATCHED, *(n for n in preset_names() if n not in (*_OTHER_SHARES, "none")))


def method_config(name: str, retain: float) -> PruneConfig:
    """The configuration of method `name` that keeps the share `retain` of the visual tokens.

    `videoprune` is the presets light, balanced and aggressive at their own retention; in between, its stages share
    the reduction as in `balanced`, which is another name for it. `videoprune-random` drops at random to the same
    counts in the same stages. `balanced-serve` has no stage 3, as engines like vLLM need it. `fastv`, `pyramiddrop` and
    `sparsevlm` keep their layers and change their ratios. `aim`, `earlytom`, `flashvid` with its forms for Qwen, and
    `holitom` keep their schedule inside the LLM and take more or less before it: `flashvid`, of which the LLM keeps 0.8
    on average, hands it 1.25 times the share, as its authors' code does. All else is the preset with other shares.
    Raises ValueError for an unknown name, and for a share that the method cannot reach.
    """
    if name == "balanced":
        name = "videoprune"
    if name not in method_names():
        raise ValueError(f"method={name!r}; allowed: {', '.join(method_names())}")
    if name == "none":
        return PruneConfig()
    if not 0 < retain < 1:
        raise ValueError(f"retain={retain}; allowed: a number between 0 and 1")
    if name == "videoprune":
        return _ours(retain)
    if name == MATCHED:
        return at_random(_ours(retain))
    config = preset(name)
    if config.encoder.method == "none":
        return config.replace(**{"llm.ratios": (), "llm.keep": retain})
    if config.llm.ratios:
        return _before_schedule(name, config, retain)
    return _shared(config, retain)


def at_random(config: PruneConfig) -> PruneConfig:
    """The control of `config`: the same stages keep as many tokens, drawn at random; the LLM by fixed shares."""
    changes = {
        f"{name}.method": "random"
        for name, part in (("encoder", config.encoder), ("fusion", config.fusion), ("llm", config.llm))
        if part.method != "none"
    }
    return config.replace(**changes)


def _ours(retain: float) -> PruneConfig:
    for step in _STEPS:
        if abs(_product(preset(step)) - retain) < _NEAR:
            return preset(step)
    return _shared(preset("balanced"), retain)


def _shared(config: PruneConfig, retain: float) -> PruneConfig:
    """The stages of `config` share the reduction to `retain` in its own proportions."""
    power = math.log(retain) / math.log(_product(config))
    changes = {
        f"{name}.keep": round(part.keep**power, 6)
        for name, part in (("encoder", config.encoder), ("fusion", config.fusion), ("llm", config.llm))
        if part.method != "none"
    }
    return config.replace(**changes)


def _before_schedule(name: str, config: PruneConfig, retain: float) -> PruneConfig:
    """The encoder's share makes up for what the LLM's own schedule keeps, `llm.keep` on average."""
    most = config.llm.keep
    if retain > most:
        raise ValueError(f"retain={retain}; allowed for {name}: at most {most:g}, its average in the LLM")
    return config.replace(**{"encoder.keep": round(retain / most, 6)})


def _product(config: PruneConfig) -> float:
    stages = (config.encoder, config.fusion, config.llm)
    return math.prod(part.keep for part in stages if part.method != "none")
