"""What nodes are given: in Ray's terms, and for real on a node whose Python has no videoprune."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest

from pipelines.run.no_actors import why_no_actor
from pipelines.run.runtime_env import asked_for, carried, packages
from videoprune.config import config_dir

ROOT = Path(__file__).parents[3]


def tree(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_code_is_carried_as_a_wheel_holds_it() -> None:
    with carried("code") as env:
        assert env is not None
        library, programs = map(Path, env["py_modules"])
        assert tree(programs) == tree(ROOT / "pipelines")
        assert tree(library) - {f"configs/{n}" for n in tree(config_dir())} == tree(ROOT / "videoprune")
        assert tree(library / "configs") == tree(config_dir())
        assert not list(library.rglob("__pycache__"))
        assert set(env) == {"py_modules"}
    assert not library.exists()
    with carried("none") as env:
        assert env is None


def test_packages_are_those_of_this_process_without_torch_and_ray() -> None:
    found = dict(line.split("==") for line in packages())
    assert (
        found.items()
        >= {name: version(name) for name in ("transformers", "av", "numpy", "safetensors")}.items()
    )
    assert not found.keys() & {"torch", "ray", "torchvision", "pytest", "hypothesis", "ruff"}
    assert asked_for("packages") == {"pip": packages()}


def test_a_file_is_rays_and_the_code_comes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "env.yaml"
    path.write_text("env_vars: {KEY: word}\npy_modules: [s3://bucket/more.zip]\n")
    with carried(str(path)) as env:
        assert env is not None
        assert env["env_vars"] == {"KEY": "word"}
        assert [Path(m).name for m in env["py_modules"]] == ["videoprune", "pipelines", "more.zip"]


@pytest.mark.parametrize("text", ["- a list", "{", "py_modules: one", ""])
def test_files_that_are_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "env.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="runtime_env="):
        asked_for(str(path))


@pytest.mark.parametrize("given", ["auto", "no.yaml", ""])
def test_words_that_are_none(given: str) -> None:
    with pytest.raises(ValueError, match=r"runtime_env=.*allowed: none.*code.*packages.*YAML"):
        asked_for(given)


def test_what_ray_says_of_an_actor_that_did_not_start() -> None:
    told = "The actor died because of an error raised in its creation task, x\n  File y\nModuleNotFoundError: No module"
    assert (
        why_no_actor(RuntimeError(f"{told} named 'einops'"))
        == "ModuleNotFoundError: No module named 'einops'"
    )
    assert why_no_actor(RuntimeError(f"{told} named 'pipelines'")).endswith("or see --runtime-env")
    assert why_no_actor(RuntimeError()) == "RuntimeError"


@pytest.fixture(scope="module")
def bare_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a node whose Python finds all packages of this one's but those that are installed for development."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder / "env", with_pip=False)
    (site,) = (folder / "env" / "lib").glob("python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_paths()["purelib"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    node = f"import sys; from ray.scripts.scripts import main; sys.argv[1:] = {start_words(port)}; main()"
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    env |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [folder / "env" / "bin" / "python", "-P", "-c", node], env=env, cwd=folder, stdout=log, stderr=log
        )
    try:
        end = time.monotonic() + 60
        while b"ray stop" not in (said := (folder / "log").read_bytes()):
            assert process.poll() is None, said.decode()
            assert time.monotonic() < end, said.decode()
            time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            for one in psutil.Process(process.pid).children(recursive=True):
                one.kill()
        process.kill()
        process.wait()


def start_words(port: int) -> list[str]:
    return [
        *("start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}", "--num-cpus=1"),
        *("--include-dashboard=false", "--object-store-memory=80000000"),
    ]


# What a run does to its nodes, and whether an actor there finds the package.
DRIVER = """
import sys
from pipelines.run.ray_cluster import cluster
from pipelines.run.ray_pool import RayOptions, ray
def look():
    try:
        import pipelines.run.stages, videoprune
        from videoprune.config import preset
        return f"{videoprune.__file__} {preset('balanced').digest()}"
    except ImportError as error:
        return str(error)
for env in ("none", "code"):
    with cluster(RayOptions(address=sys.argv[1], runtime_env=env)):
        print(ray.get(ray.remote(look).remote(), timeout=60))
"""


def test_a_node_without_the_package_gets_it(bare_node: str, tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, bare_node],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    without, with_code = done.stdout.strip().splitlines()
    assert without == "No module named 'pipelines'"
    path, digest = with_code.split()
    assert "runtime_resources" in path
    assert not path.startswith(str(ROOT))
    from videoprune.config import preset

    assert digest == preset("balanced").digest()
