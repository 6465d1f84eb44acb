"""The Helm chart as helm itself renders it."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from deployment import ROOT, TIMEOUT_S, find_tool

CHART = ROOT / "deploy" / "helm" / "lychee-rerank"
RELEASE = "lychee"
NAMESPACE = "search"
OLDEST, NEWEST = 28, 37
"""The minor versions of Kubernetes that the chart is for."""

Manifest = dict[str, Any]


class RefusedError(Exception):
    """Helm refused the values; the message is what it says."""


def run_helm(*arguments: str | Path, values: Mapping[str, Any] | None = None) -> str:
    """Return what helm prints.

    Raises:
        RefusedError: It failed.
    """
    command: list[str | Path] = [find_tool("helm"), *arguments, "--values", "-"]
    text = yaml.safe_dump(dict(values or {}))
    finished = subprocess.run(command, input=text, capture_output=True, text=True, timeout=TIMEOUT_S)
    if finished.returncode:
        raise RefusedError(finished.stderr + finished.stdout)
    return finished.stdout


def render(values: Mapping[str, Any] | None = None, minor: int = NEWEST) -> list[Manifest]:
    """Return the manifests for these values and this Kubernetes 1.x.

    Raises:
        RefusedError: The chart does not take them.
    """
    return list(_render(yaml.safe_dump(dict(values or {})), minor))


@cache
def _render(values: str, minor: int) -> tuple[Manifest, ...]:
    options = ("--namespace", NAMESPACE, "--kube-version", f"1.{minor}.0")
    text = run_helm("template", RELEASE, CHART, *options, values=yaml.safe_load(values))
    return tuple(manifest for manifest in yaml.safe_load_all(text) if manifest)


def of_kind(manifests: list[Manifest], kind: str, name: str | None = None) -> list[Manifest]:
    """Return the manifests of a kind, and of a name without the release's."""
    return [
        manifest
        for manifest in manifests
        if manifest["kind"] == kind and name in (None, manifest["metadata"]["name"].removeprefix(f"{RELEASE}-"))
    ]


def one(manifests: list[Manifest], kind: str, name: str | None = None) -> Manifest:
    """Return the only manifest of a kind and name."""
    (found,) = of_kind(manifests, kind, name)
    return found


def pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Return what describes a pod, by kind and name of what makes it."""
    found = {}
    for manifest in manifests:
        name = f"{manifest['kind']} {manifest['metadata']['name'].removeprefix(f'{RELEASE}-')}"
        if manifest["kind"] in ("Deployment", "Job"):
            found[name] = manifest["spec"]["template"]
        elif manifest["kind"] == "RayJob":
            cluster = manifest["spec"]["rayClusterSpec"]
            for part in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
                found[f"RayJob {part.get('groupName', 'head')}"] = part["template"]
        elif manifest["kind"] == "Pod":
            found[name] = manifest
    return found


def container(manifests: list[Manifest], pod: str, name: str) -> Manifest:
    """Return a container, or a container that runs first, of a pod that `pods` knows by this name."""
    spec = pods(manifests)[pod]["spec"]
    (found,) = [one for one in [*spec["containers"], *spec.get("initContainers", [])] if one["name"] == name]
    return dict(found)


def environment(of: Manifest) -> dict[str, str]:
    """Return the variables of a container that stand in the manifest; those of Secrets are left out."""
    return {entry["name"]: entry["value"] for entry in of.get("env", []) if "value" in entry}
