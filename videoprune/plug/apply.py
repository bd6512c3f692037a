"""`apply` a pruning configuration to a stock transformers model, and `remove` it again.

Nothing of the model is copied or rewritten: hooks shorten what flows between its own modules, one registered
attention function attends in proportion to merged sizes, and `remove` takes all of it away. What is put on a model
holds no state of any call (`current_pass`).
"""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from videoprune.config import PruneConfig, preset
from videoprune.plug.families import FAMILIES
from videoprune.plug.installed import Installed, installed_on
from videoprune.plug.settings import Settings, stock_settings
from videoprune.prune.registry import INSIDE, names


def apply(model: Any, prune: str | PruneConfig) -> Any:
    """Prune `model` from now on; `model(...)` and `model.generate(...)` are called as before.

    model: a stock model of one of the `FAMILIES`, or a PEFT model around one. prune: a preset's name or a
    configuration. With one encoder `fusion` keeps the tokens that differ most over the clip, so a preset stands for the
    same share of tokens as in a model of several encoders. Adaptive LLM pruning needs `llm.lambda_`; without it fixed
    shares with the same average are used, and a warning says so. A model that is already pruned is changed to the
    new configuration; calls that are under way end as they began.
    -> the same model. Raises ValueError for other models, for what a family cannot do, and for a release of
    transformers that lacks what is needed; the model is then as it was.
    """
    config = preset(prune) if isinstance(prune, str) else prune
    stock = _stock_model(model)
    settings = settings_for(stock, config)  # what is refused changes nothing
    hooked(stock).default = settings
    return model


def remove(model: Any) -> Any:
    """Take pruning away: afterwards `model` computes what it did before `apply`, bit for bit."""
    found = installed_on(_inner(model))
    if found is not None:
        found.remove()
    return model


def settings_for(model: PreTrainedModel, config: PruneConfig) -> Settings:
    """`config` for one stock model. Raises ValueError for what its family cannot do."""
    return settings_of_config(config, model.config)


def settings_of_config(prune: PruneConfig, model_config: Any) -> Settings:
    """`prune` for a stock model of this configuration. Raises ValueError for what its family cannot do."""
    method, pools = prune.encoder.method, FAMILIES[model_config.model_type].pools
    if pools and prune.encoder.keep < 1 and method in INSIDE and not INSIDE[method].merges:
        raise ValueError(
            f"encoder.method={method!r}; allowed for {model_config.model_type}, whose pooling needs a value at every "
            f"place: {', '.join(n for n in names('encoder') if n not in INSIDE or INSIDE[n].merges)}"
        )
    return stock_settings(prune, model_config)


def hooked(model: PreTrainedModel) -> Installed:
    """What the hooks of `model` read, put there if nothing is; without settings of its own it prunes nothing."""
    return installed_on(model) or Installed.on(model, FAMILIES[model.config.model_type](model))


def _inner(model: Any) -> Any:
    """The model within a PEFT model; any other model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _stock_model(model: Any) -> Any:
    """The stock model to be pruned. Raises ValueError for what is none."""
    found = _inner(model)
    kind = getattr(getattr(found, "config", None), "model_type", None)
    whole = hasattr(found, "generate") and hasattr(found, "model")
    if kind not in FAMILIES or not whole:
        raise ValueError(
            f"model: {type(found).__name__}, model_type={kind!r}; allowed: a whole model "
            f"(…ForConditionalGeneration) of {', '.join(sorted(FAMILIES))}"
        )
    return found
