"""What the processes of a cluster are given of this one's Python, in the terms of Ray's runtime_env.

Ray installs nothing by itself: it carries folders to the nodes, and lets pip make an environment on each.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement

import pipelines
import videoprune
from videoprune.config import config_dir

NONE, CODE, PACKAGES = "none", "code", "packages"
ALLOWED = (
    f"{NONE}: nodes have videoprune; {CODE}: this package is carried to them; {PACKAGES}: pip also installs there what "
    "it needs but torch and Ray; or a YAML file with Ray's runtime_env, with which this package is carried too"
)
# Nodes bring these: Ray cannot install itself, and which build of torch fits is a matter of their GPUs.
_OF_THE_NODES = ("ray", "torch", "torchvision")
_EXTRAS = ("", "stock", "benchmarks", "remote")


def asked_for(given: str) -> dict[str, Any]:
    """Ray's terms, without this package itself. Raises ValueError for what is none of `ALLOWED`."""
    if given in (NONE, CODE):
        return {}
    if given == PACKAGES:
        return {"pip": packages()}
    path = Path(given)
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        raise ValueError(f"runtime_env={given!r}; allowed: {ALLOWED}")
    try:
        found = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"runtime_env={given!r}: no YAML: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("py_modules", []), list):
        raise ValueError(f"runtime_env={given!r}: {found!r}; allowed: a mapping, its py_modules a list")
    return found


def packages() -> list[str]:
    """What videoprune needs and this process has, in the same versions. Raises ValueError if it is not installed."""
    try:
        needs = [Requirement(line) for line in importlib.metadata.requires("videoprune") or ()]
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(
            f"runtime_env={PACKAGES!r}; allowed: where videoprune is installed by pip, or a YAML file"
        ) from None
    wanted = {n.name for n in needs if any(not n.marker or n.marker.evaluate({"extra": e}) for e in _EXTRAS)}
    found = []
    for name in sorted(wanted.difference(_OF_THE_NODES)):
        try:
            found.append(f"{name}=={importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue  # of an extra that is not used here
    return found


@contextmanager
def carried(given: str) -> Iterator[dict[str, Any] | None]:
    """What `ray.init` takes while the block runs; None for nothing."""
    more = asked_for(given)
    if given == NONE:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="videoprune-") as folder:
        own = [str(_copied(package, Path(folder))) for package in (videoprune, pipelines)]
        yield more | {"py_modules": [*own, *more.get("py_modules", [])]}


def _copied(package: Any, folder: Path) -> Path:
    """The package as a wheel holds it: its YAML files may lie beside it here."""
    source, to = Path(package.__file__).parent, folder / package.__name__
    shutil.copytree(source, to, ignore=shutil.ignore_patterns("__pycache__"))
    if package is videoprune and not (to / "configs").exists():
        shutil.copytree(config_dir(), to / "configs")
    return to
