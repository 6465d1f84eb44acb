"""Policies for what runs in a cluster: checkov's, and Kubernetes' restricted profile."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from chart import pods, render
from deployment import TOOLS

from .conftest import MATRIX

CHECKOV = TOOLS / "chart" / "bin" / "checkov"
TIMEOUT_S = 300

ACCEPTED = {
    "CKV_K8S_8": "a test that runs once has no liveness",
    "CKV_K8S_9": "a test that runs once has no readiness",
    "CKV_K8S_11": "a limit of processors stops models in the middle of a batch; requests share them out fairly",
    "CKV_K8S_15": "tags are versions, which nobody overwrites; a pull at every start needs the registry up",
    "CKV_K8S_21": "the namespace is what `helm --namespace` says",
    "CKV_K8S_35": "Triton takes its key as an argument and SDKs read variables; the API keys are a file",
    "CKV_K8S_40": "the users of NVIDIA's image and of Redis' image have the ids 1000 and 999",
    "CKV_K8S_43": "digests are the values image.digest; the tags are pinned",
}
"""Policies that something here does not follow, and why."""
ONLY_TESTS = {"CKV_K8S_8", "CKV_K8S_9"}


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """Return the policies that are not followed, and by which object of which case."""
    if not CHECKOV.exists():
        pytest.skip(f"there is no {CHECKOV.relative_to(TOOLS.parent)} here; deploy/test-tools.sh makes it")
    folder = tmp_path_factory.mktemp("rendered")
    for case, values in MATRIX.items():
        (folder / f"{case}.yaml").write_text(yaml.safe_dump_all(render(values)), encoding="utf-8")
    command = [CHECKOV, "--directory", folder, "--framework", "kubernetes", "--output", "json", "--quiet"]
    finished = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT_S, env={"HOME": str(folder), "PATH": "/usr/bin:/bin"}
    )
    report = json.loads(finished.stdout)
    assert report["summary"]["passed"] > 1000, finished.stdout[:1000]
    assert report["summary"]["parsing_errors"] == 0
    found = report["results"]["failed_checks"]
    return [(one["check_id"], f"{Path(one['file_path']).stem} {one['resource']}") for one in found]


def test_every_policy_is_followed_or_its_exception_has_a_reason(failures: list[tuple[str, str]]) -> None:
    assert not [failure for failure in failures if failure[0] not in ACCEPTED]
    for check, where in failures:
        assert check not in ONLY_TESTS or where.endswith("-test") or " Job." in where, (check, where)


def test_no_reason_is_left_that_nothing_needs(failures: list[tuple[str, str]]) -> None:
    assert {check for check, _ in failures} == set(ACCEPTED)


def test_every_pod_meets_the_restricted_profile(case: str) -> None:
    for name, pod in pods(render(MATRIX[case])).items():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        assert not [volume for volume in spec.get("volumes", []) if "hostPath" in volume], name
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert security["readOnlyRootFilesystem"] is True, name
            assert security.get("runAsUser") != 0, name
            assert container["resources"]["limits"]["memory"], name
            assert container["resources"]["requests"]["memory"] or container["name"] == "wait-for-models", name


def test_what_is_written_to_is_a_volume(case: str) -> None:
    for name, pod in pods(render(MATRIX[case])).items():
        volumes = {volume["name"] for volume in pod["spec"].get("volumes", [])}
        for container in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]:
            mounts = {mount["mountPath"]: mount["name"] for mount in container.get("volumeMounts", [])}
            assert set(mounts.values()) <= volumes, name
            if container["name"] in ("gateway", "triton", "redis", "export", "get-models"):
                assert "/tmp" in mounts, (name, container["name"])
            if container["name"] == "triton":
                assert {"/models", "/dev/shm"} <= set(mounts)


def test_no_pod_has_a_token_or_reads_services_from_its_environment(case: str) -> None:
    for name, pod in pods(render(MATRIX[case])).items():
        assert pod["spec"]["automountServiceAccountToken"] is False, name
        # LYCHEE_GATEWAY_PORT=tcp://..., made from a service lychee-gateway, would be taken for the gateway's setting.
        assert pod["spec"]["enableServiceLinks"] is False, name
