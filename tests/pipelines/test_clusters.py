"""configs/clusters: what Ray and KubeRay take, in the version that the tests run on, with commands that we take."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from ray.autoscaler._private.util import fillout_defaults, validate_config

from pipelines import evaluate
from pipelines.cli import main
from videoprune.config import config_dir

FOLDER = config_dir() / "clusters"
ROOT = Path(__file__).parents[2]
# Fields of KubeRay's custom resources, ray.io/v1, as of August 2026; a pod's template is Kubernetes' affair.
CLUSTER = (
    "authOptions autoscalerOptions enableInTreeAutoscaling gcsFaultToleranceOptions headGroupSpec rayVersion "
    "headServiceAnnotations historyServerOptions managedBy networkPolicy suspend tlsOptions upgradeStrategy "
    "workerGroupSpecs"
)
HEAD = "enableIngress headService ingressOptions labels rayStartParams resources serviceType template"
WORKERS = (
    "groupName idleTimeoutSeconds labels maxReplicas minReplicas numOfHosts priority rayStartParams replicas resources "
    "scaleStrategy suspend template"
)
JOB = (
    "activeDeadlineSeconds backoffLimit clusterSelector deletionStrategy entrypoint entrypointNumCpus "
    "entrypointNumGpus entrypointResources jobId managedBy metadata preRunningDeadlineSeconds rayClusterSpec "
    "runtimeEnvYAML shutdownAfterJobFinishes submissionMode submitterConfig submitterPodTemplate suspend "
    "ttlSecondsAfterFinished"
)


def read(name: str) -> dict[str, Any]:
    found = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    assert isinstance(found, dict)
    return found


def test_rays_launcher_takes_its_file() -> None:
    whole = fillout_defaults(read("aws"))
    validate_config(whole)
    with pytest.raises(Exception, match="nonsense"):
        validate_config(whole | {"nonsense": 1})
    assert whole["head_node_type"] in whole["available_node_types"]
    started = [*whole["head_start_ray_commands"], *whole["worker_start_ray_commands"]]
    assert sum("RAY_AUTH_MODE=token ray start" in line for line in started) == 2


@pytest.mark.parametrize("name", ["kuberay-cluster", "kuberay-job"])
def test_kuberay_knows_the_fields(name: str) -> None:
    found = read(name)
    assert found["apiVersion"] == "ray.io/v1"
    assert found["kind"] == ("RayJob" if name.endswith("job") else "RayCluster")
    spec = found["spec"]
    if name.endswith("job"):
        assert set(spec) <= set(JOB.split())
        spec = spec["rayClusterSpec"]
    assert set(spec) <= set(CLUSTER.split())
    assert set(spec["headGroupSpec"]) <= set(HEAD.split())
    assert all(isinstance(value, str) for value in spec["headGroupSpec"]["rayStartParams"].values())
    for group in (*spec["workerGroupSpecs"], spec["headGroupSpec"]):
        assert set(group) <= set(WORKERS.split())
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {m["name"] for c in pod["containers"] for m in c["volumeMounts"]} == volumes


def test_the_jobs_cluster_is_the_cluster() -> None:
    assert read("kuberay-job")["spec"]["rayClusterSpec"] == read("kuberay-cluster")["spec"]


@pytest.mark.parametrize("name", ["aws", "kuberay-cluster", "kuberay-job"])
def test_the_version_of_ray_is_the_tested_one(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text()
    named = re.findall(r"(?:ray:|ray\[default\]==|rayVersion: \"|videoprune:)(\d+\.\d+\.\d+)", text)
    tested = re.search(r"^ray==(.*)$", (ROOT / "requirements" / "tested.txt").read_text(), re.MULTILINE)
    assert tested is not None
    assert set(named) == {tested[1]}
    assert tested[1] == ray.__version__


@pytest.mark.parametrize("name", ["aws", "kuberay-cluster", "kuberay-job"])
def test_commands_are_ours(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[argparse.Namespace] = []
    monkeypatch.setattr(evaluate, "run", lambda args, words: taken.append(args) or 0)
    if name == "kuberay-job":
        command = read(name)["spec"]["entrypoint"]
    else:
        comment = " ".join(
            line.lstrip("# ")
            for line in (FOLDER / f"{name}.yaml").read_text().splitlines()
            if line[:1] == "#"
        )
        found = re.search(r"videoprune eval .*? --out [\w/]+", comment)
        assert found is not None
        command = found[0]
    assert main(shlex.split(command)[1:]) == 0
    (args,) = taken
    assert (args.executor, args.models, args.workers) == ("ray", 4, (2, 6))
    assert args.videos == "s3://BUCKET/videos"
    groups = read(name)["available_node_types"]["gpu"]["max_workers"] if name == "aws" else 4
    assert groups == args.models  # a model on each GPU
