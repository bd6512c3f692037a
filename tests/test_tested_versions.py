"""The tested ranges have one meaning, wherever they are written."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from videoprune import tested_versions

ROOT = Path(__file__).resolve().parents[1]
DEPENDENCIES = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
# name: (from, before)
BOUNDS = {
    n: (a, b) for line in DEPENDENCIES for n, a, b in re.findall(r"^([\w-]+)>=([\d.]+),<([\d.]+)", line)
}


def _pins(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / name).read_text()
    return dict(re.findall(r"^([\w.-]+)==([^;\s]+)", text, re.MULTILINE))


def _numbers(release: str) -> list[int]:
    return [int(n) for n in release.split(".")]


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_the_constants_say_what_the_project_says(package: str) -> None:
    low, high = getattr(tested_versions, package.upper())
    *front, last = _numbers(high)
    assert BOUNDS[package] == (low, ".".join(map(str, [*front, last + 1])))
    assert _pins("tested.txt")[package].startswith(f"{high}.")


def test_every_dependency_has_bounds_and_is_locked_within_them() -> None:
    assert len(BOUNDS) == len(DEPENDENCIES)
    pins = _pins("tested.txt")
    for name, (first, end) in BOUNDS.items():
        assert _numbers(first) <= _numbers(pins[name]) < _numbers(end), name


def test_the_oldest_are_the_lowest_allowed() -> None:
    text = (ROOT / "requirements" / "oldest.txt").read_text()
    oldest = re.findall(r"^([\w.-]+)==([\d.]+)(?!.*>=)", text, re.MULTILINE)  # but for a newer Python's
    assert dict(oldest)["transformers"].startswith(f"{tested_versions.TRANSFORMERS[0]}.")
    for name, release in oldest:
        low = _numbers(BOUNDS[name][0])
        assert _numbers(release)[: len(low)] == low, name
