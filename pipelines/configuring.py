"""A preset or a YAML file, plus dotted words from the command line, to a PruneConfig."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from videoprune.config import PruneConfig, config_dir, preset_names


def load_prune(name: str, overrides: Sequence[str] = ()) -> PruneConfig:
    """The configuration `name`, a preset or a path to a YAML file, with `overrides` such as "llm.lambda_=50".

    Later words win. Values are YAML: null, true, [0.5, 0.3]. Raises ValueError that names an unknown preset,
    an unknown key or an impossible value.
    """
    path = _yaml_path(name)
    for word in overrides:
        key, sign, _ = word.partition("=")
        if not sign or not all(key.split(".")):
            raise ValueError(f"override {word!r}; allowed: part.name=value, such as llm.lambda_=50")
    try:
        base = OmegaConf.load(path)
        if not OmegaConf.is_dict(base):
            raise ValueError(f"prune={name!r}: {path} holds no mapping; allowed: encoder, fusion, llm, seed")
        data = OmegaConf.to_container(
            OmegaConf.merge(base, OmegaConf.from_dotlist(list(overrides))), resolve=True
        )
    except (OmegaConfBaseException, YAMLError) as error:
        first = str(error).strip().splitlines()[0]
        raise ValueError(f"prune={name!r} with {' '.join(overrides) or 'no overrides'}: {first}") from error
    assert isinstance(data, dict)
    return PruneConfig.from_dict({str(key): value for key, value in data.items()})


def _yaml_path(name: str) -> Path:
    if name in preset_names():
        return config_dir() / "presets" / f"{name}.yaml"
    path = Path(name)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return path
    raise ValueError(
        f"prune={name!r}; allowed: {', '.join(preset_names())}, or a path to a .yaml file that exists"
    )
