from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipelines.tiny import write_tiny_model
from videoprune.eval.benchmarks.moving_shapes.make import make_benchmark


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model with random weights. For reading only."""
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A benchmark of three clips with three questions each. For reading only."""
    return make_benchmark(tmp_path_factory.mktemp("clips") / "bench", clips=3, size=48, fps=4, workers=1)
