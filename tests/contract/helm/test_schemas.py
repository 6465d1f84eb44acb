"""Kubernetes of every version takes what the chart renders, and so do the operators of its custom resources."""

from __future__ import annotations

import functools
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart import NEWEST, OLDEST, Manifest, of_kind, one, render
from deployment import TIMEOUT_S, TOOLS, find_tool
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from .conftest import GATEWAY, MATRIX

SCHEMAS = TOOLS / "kubernetes-schemas"
CHART_PYTHON = TOOLS / "chart" / "bin" / "python"
CUSTOM = {"PodMonitor", "PrometheusRule", "ScaledObject", "HTTPRoute", "RayJob"}

RAY_JOB = {
    "backoffLimit",
    "entrypoint",
    "rayClusterSpec",
    "shutdownAfterJobFinishes",
    "submissionMode",
    "ttlSecondsAfterFinished",
}
"""What the chart uses of KubeRay's RayJob. Its definition, of KubeRay 1.4 and 1.7, was held to the chart once."""

READ_BY_THEIR_CLASSES = """
import json, sys
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.prometheus_operator.v1 import PodMonitor, PrometheusRule

kinds = {kind.__name__: kind for kind in (PodMonitor, PrometheusRule, ScaledObject)}
for manifest in json.load(sys.stdin):
    read = kinds[manifest["kind"]].model_validate(manifest)
    print(json.dumps(read.model_dump(mode="json", by_alias=True, exclude_unset=True)))
"""


@functools.cache
def validator(minor: int, kind: str, api_version: str) -> Draft202012Validator:
    """Return what checks a kind of Kubernetes 1.x strictly: a field that it does not know is an error."""
    folder = SCHEMAS / f"v1.{minor}.0-local-strict"
    if not folder.is_dir():
        pytest.skip(f"there is no {folder.relative_to(TOOLS.parent)} here; deploy/test-tools.sh gets it")
    group, _, version = api_version.rpartition("/")
    name = "-".join(filter(None, (kind.lower(), group.partition(".")[0], version)))
    files = [json.loads((folder / file).read_text(encoding="utf-8")) for file in (f"{name}.json", "_definitions.json")]
    registry: Registry[Any] = Registry().with_resources([(file["$id"], Resource.from_contents(file)) for file in files])
    return Draft202012Validator(files[0], registry=registry)


def problems(manifests: list[Manifest], minor: int) -> list[str]:
    return [
        f"{manifest['kind']} {manifest['metadata']['name']}: {error.json_path}: {error.message[:300]}"
        for manifest in manifests
        if manifest["kind"] not in CUSTOM
        for error in validator(minor, manifest["kind"], manifest["apiVersion"]).iter_errors(manifest)
    ]


def test_every_version_of_kubernetes_takes_every_object(case: str, oldest: int) -> None:
    manifests = render(MATRIX[case], oldest)
    for minor in range(oldest, NEWEST + 1):
        assert not problems(manifests, minor), minor


def test_a_field_that_kubernetes_does_not_know_is_seen() -> None:
    deployment = one(render(), "Deployment", "gateway")
    broken = {**deployment, "spec": {**deployment["spec"], "replica": 2}}
    (problem,) = problems([broken], NEWEST)
    assert "'replica' was unexpected" in problem


@pytest.mark.parametrize("bulk", ["bulk", "bulk-gateway", "bulk-gpu"])
def test_kubernetes_takes_the_pods_of_a_bulk_run(bulk: str) -> None:
    job = one(render(MATRIX[bulk]), "RayJob")
    templates = [job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]]
    templates += [group["template"] for group in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]]
    deployment = one(render(MATRIX[bulk]), "Deployment", "server" if bulk == "bulk-gateway" else "gateway")
    labels = {"app.kubernetes.io/component": "ray"}
    for template in templates:
        assert labels.items() <= template["metadata"]["labels"].items()
        in_place = {**deployment["spec"], "selector": {"matchLabels": labels}, "template": template}
        for minor in range(OLDEST, NEWEST + 1):
            assert not problems([{**deployment, "spec": in_place}], minor), minor


def test_a_bulk_run_has_the_fields_of_kuberay() -> None:
    job = one(render(MATRIX["bulk-gpu"]), "RayJob")
    assert job["apiVersion"] == "ray.io/v1"
    spec = job["spec"]
    assert set(spec) <= RAY_JOB
    assert spec["submissionMode"] == "HTTPMode"
    cluster = spec["rayClusterSpec"]
    assert set(cluster) == {"rayVersion", "headGroupSpec", "workerGroupSpecs"}
    assert set(cluster["headGroupSpec"]) == {"rayStartParams", "template"}
    (workers,) = cluster["workerGroupSpecs"]
    assert set(workers) == {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
    for group in (workers, cluster["headGroupSpec"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        assert group["template"]["spec"]["containers"][0]["name"] == "ray"  # the one that KubeRay starts Ray in
        assert "restartPolicy" not in group["template"]["spec"]


def test_operators_take_their_resources_and_know_every_field() -> None:
    if not Path(CHART_PYTHON).exists():
        pytest.skip(f"there is no {CHART_PYTHON.relative_to(TOOLS.parent)} here; deploy/test-tools.sh makes it")
    manifests = [
        manifest
        for case in ("hpa", "keda", "monitored")
        for manifest in render(MATRIX[case])
        if manifest["kind"] in CUSTOM
    ]
    assert {manifest["kind"] for manifest in manifests} == CUSTOM - {"HTTPRoute", "RayJob"}
    finished = subprocess.run(
        [CHART_PYTHON, "-c", READ_BY_THEIR_CLASSES],
        input=json.dumps(manifests),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert finished.returncode == 0, finished.stderr
    read = [json.loads(line) for line in finished.stdout.splitlines()]
    assert read == manifests  # what a class does not know, it leaves out


def test_prometheus_takes_the_rules_and_the_queries_of_autoscalers(tmp_path: Path) -> None:
    rules = one(render(MATRIX["monitored"]), "PrometheusRule")["spec"]
    (trigger,) = one(render(MATRIX["keda"]), "ScaledObject")["spec"]["triggers"]
    adapter = yaml.safe_load(one(render(MATRIX["hpa"]), "ConfigMap")["data"]["config.yaml"])["externalRules"][0]
    matchers = 'namespace="search"'
    asked = (trigger["metadata"]["query"], adapter["metricsQuery"].replace("<<.LabelMatchers>>", matchers))
    queries = [{"record": f"queue{number}", "expr": query} for number, query in enumerate(asked)]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [*rules["groups"], {"name": "q", "rules": queries}]}), encoding="utf-8")
    finished = subprocess.run(
        [find_tool("promtool"), "check", "rules", path], capture_output=True, text=True, timeout=60
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert f"{len(rules['groups'][0]['rules']) + 2} rules found" in finished.stdout


def test_the_value_is_the_target_where_requests_wait_as_long_as_it_says(tmp_path: Path) -> None:
    (trigger,) = one(render(MATRIX["keda"]), "ScaledObject")["spec"]["triggers"]
    target = float(trigger["metadata"]["threshold"])
    query = f"round({trigger['metadata']['query']}, 0.001)"
    labels = 'namespace="search",app_kubernetes_io_instance="lychee"'

    def series(name: str, model: str, step: float, of: str = labels) -> dict[str, str]:
        return {"series": f'{name}{{{of},model="{model}"}}', "values": f"0+{step:g}x40"}

    tests = []
    for wait_ms, expected in ((target, target), (4 * target, 2 * target), (0, 0)):
        waits = {"text_encoder": wait_ms, "vision_encoder": wait_ms / 9, "rerank_text": 1000 * target}
        inputs = [series("nv_inference_request_success", model, 100) for model in waits]
        inputs += [series("nv_inference_queue_duration_us", model, 100e3 * wait) for model, wait in waits.items()]
        other = labels.replace("lychee", "another")
        inputs += [series("nv_inference_request_success", "text_encoder", 100, other)]
        inputs += [series("nv_inference_queue_duration_us", "text_encoder", 1e9, other)]
        sample = {"value": expected, "labels": "{}"}
        asked = {"expr": query, "eval_time": "9m", "exp_samples": [sample]}
        tests.append({"interval": "15s", "input_series": inputs, "promql_expr_test": [asked]})
    silent = {"expr": query, "eval_time": "9m", "exp_samples": [{"value": 0, "labels": "{}"}]}
    tests.append({"interval": "15s", "input_series": [], "promql_expr_test": [silent]})
    path = tmp_path / "test.yml"
    path.write_text(yaml.safe_dump({"tests": tests}), encoding="utf-8")
    finished = subprocess.run(
        [find_tool("promtool"), "test", "rules", path], capture_output=True, text=True, timeout=60
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_a_route_sends_a_share_to_the_canary_and_keeps_metrics_inside() -> None:
    route = one(render(MATRIX["canary"]), "HTTPRoute")
    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert set(route["spec"]) == {"parentRefs", "hostnames", "rules"}
    assert route["spec"]["parentRefs"] == [GATEWAY]
    metrics, everything = route["spec"]["rules"]
    assert metrics["matches"] == [{"path": {"type": "Exact", "value": "/metrics"}}]
    assert metrics["filters"] == [
        {
            "type": "RequestRedirect",
            "requestRedirect": {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/"}, "statusCode": 302},
        }
    ]
    assert everything == {
        "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
        "timeouts": {"request": "35s"},
        "backendRefs": [
            {"name": "lychee-gateway", "port": 7860, "weight": 95},
            {"name": "lychee-next-gateway", "port": 7860, "weight": 5},
        ],
    }


def test_every_kind_is_in_the_matrix() -> None:
    seen = {manifest["kind"] for values in MATRIX.values() for manifest in render(values)}
    assert seen == CUSTOM | {
        "ConfigMap",
        "Deployment",
        "HorizontalPodAutoscaler",
        "Ingress",
        "Job",
        "NetworkPolicy",
        "PersistentVolumeClaim",
        "Pod",
        "PodDisruptionBudget",
        "Secret",
        "Service",
        "ServiceAccount",
    }
    assert not of_kind(render(), "Ingress")
