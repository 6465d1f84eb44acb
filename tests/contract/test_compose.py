"""docker-compose.yml, the Dockerfile and what it is built from; no container runs."""

from __future__ import annotations

import fnmatch
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from deployment import (
    COMPOSE_FILE,
    DOCKERFILE,
    ROOT,
    TARGETS,
    dockerfile_argument,
    find_tool,
    last_instruction,
    read_dockerfile,
    read_services,
    run_compose,
)
from lychee_server.gateway.settings import ENVIRONMENT_PREFIX, GatewaySettings, variable_of

PROFILES = ("cache", "export", "gpu", "loadtest", "observability", "tensorrt")
HARDENED = ("export", "gateway", "grafana", "locust", "prometheus", "redis")
NEEDS_A_MOUNT = {"API_KEYS_FILE", "CALIBRATION", "ERROR_LOG", "EXPERIMENT", "MODELS"}
"""Files: compose.keys.yml, docs/how-to/deploy.md and several-models.md show how to mount them."""


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """Return the services as Docker Compose resolves them."""
    return read_services()


@pytest.fixture(scope="module")
def raw() -> dict[str, Any]:
    """Return the file's own content."""
    content: dict[str, Any] = yaml.safe_load(COMPOSE_FILE.read_text(encoding="utf-8"))
    return content


def test_triton_and_gateway_start_without_a_profile() -> None:
    assert set(run_compose("config", "--services").split()) == {"triton", "gateway"}


@pytest.mark.parametrize("profile", PROFILES)
def test_docker_compose_accepts_every_profile(profile: str) -> None:
    started = set(run_compose(f"--profile={profile}", "config", "--services").split())
    assert started > {"triton", "gateway"}


def test_every_profile_is_known_here(raw: dict[str, Any]) -> None:
    used = {profile for service in raw["services"].values() for profile in service.get("profiles", [])}
    assert used == set(PROFILES)


def test_gpu_server_takes_the_place_and_the_name_of_the_other() -> None:
    services = read_services(LYCHEE_CPU_SERVERS="0")
    assert services["triton"]["scale"] == 0
    assert services["triton-gpu"]["networks"]["serving"]["aliases"] == ["triton"]
    assert services["gateway"]["depends_on"]["triton-gpu"] == {"condition": "service_healthy", "required": False}


def test_models_come_from_the_volume_that_export_fills_or_from_a_folder(tmp_path: Path) -> None:
    for options, source in (({}, "models"), ({"LYCHEE_REPOSITORY": str(tmp_path)}, str(tmp_path))):
        services = read_services(**options)
        for name, read_only in (("export", None), ("triton", True), ("triton-gpu", True), ("tensorrt-build", None)):
            (mount,) = [mount for mount in services[name]["volumes"] if mount["target"] == "/models"]
            assert (mount["source"], mount.get("read_only")) == (source, read_only), name


def test_triton_waits_for_an_export_that_runs_and_the_gateway_for_triton(services: dict[str, Any]) -> None:
    for name in ("triton", "triton-gpu"):
        assert services[name]["depends_on"]["export"] == {
            "condition": "service_completed_successfully",
            "required": False,
        }
    assert services["gateway"]["depends_on"]["triton"]["condition"] == "service_healthy"


def test_every_image_has_a_version(services: dict[str, Any]) -> None:
    for name, service in services.items():
        if "build" not in service:
            tag = service["image"].partition(":")[2]
            assert re.search(r"\d+\.\d+", tag), f"{name}: {service['image']}"


def test_services_without_privileges_have_none(services: dict[str, Any]) -> None:
    for name in HARDENED:
        service = services[name]
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["pids_limit"], name
    assert set(services) - set(HARDENED) == {"tensorrt-build", "triton", "triton-gpu"}


def test_no_service_gains_privileges_or_fills_memory_and_disk(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name
        if name != "tensorrt-build":
            assert int(service["mem_limit"]) > 0, name
            assert service["logging"]["options"] == {"max-size": "10m", "max-file": "5"}, name


def test_services_that_last_have_a_health_check(services: dict[str, Any]) -> None:
    for name in set(services) - {"export", "locust", "tensorrt-build"}:
        assert services[name]["healthcheck"]["test"][0] == "CMD", name
        assert services[name]["restart"] == "unless-stopped", name


def test_every_port_is_on_the_loopback_until_somebody_says_otherwise(services: dict[str, Any]) -> None:
    ports = {name: service.get("ports", []) for name, service in services.items()}
    assert all(port["host_ip"] == "127.0.0.1" for published in ports.values() for port in published)
    assert [port["published"] for port in ports["gateway"]] == ["7860"]
    assert {port["target"] for port in ports["triton"]} == {8000, 8001}
    assert not ports["redis"]
    (opened,) = read_services(LYCHEE_LISTEN="0.0.0.0:80")["gateway"]["ports"]
    assert (opened["host_ip"], opened["published"], opened["target"]) == ("0.0.0.0", "80", 7860)


def test_only_the_gateway_reaches_redis(services: dict[str, Any]) -> None:
    assert set(services["redis"]["networks"]) == {"cache"}
    assert {name for name, service in services.items() if "cache" in service.get("networks", {})} == {
        "gateway",
        "redis",
    }


def test_every_setting_of_the_gateway_reaches_its_container(raw: dict[str, Any]) -> None:
    variables = {variable_of(name) for name in GatewaySettings.model_fields}
    expected = variables - {ENVIRONMENT_PREFIX + name for name in NEEDS_A_MOUNT}
    environment = raw["services"]["gateway"]["environment"]
    assert {name for name in environment if name.startswith(ENVIRONMENT_PREFIX)} == expected


def test_gateway_has_longer_to_stop_than_its_calls_to_end(services: dict[str, Any]) -> None:
    gateway = services["gateway"]
    drain_s = float(gateway["environment"]["LYCHEE_GATEWAY_DRAIN_TIMEOUT_S"])
    assert gateway["stop_grace_period"] == "40s"
    assert drain_s < 40


def test_keys_come_from_a_file_on_request(tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text("a-key\n", encoding="utf-8")
    override = ROOT / "deploy" / "gateway" / "compose.keys.yml"
    files = (COMPOSE_FILE, override)
    gateway = read_services(files=files, LYCHEE_API_KEYS_FILE=str(keys))["gateway"]
    assert gateway["environment"]["LYCHEE_GATEWAY_API_KEYS_FILE"] == "/run/secrets/api-keys"
    assert [secret["source"] for secret in gateway["secrets"]] == ["api-keys"]
    with pytest.raises(subprocess.CalledProcessError) as caught:
        read_services(files=files)
    assert "one key per line" in caught.value.stderr


def test_images_are_pinned_unprivileged_and_clean() -> None:
    # DL3059 asks for fewer layers; in a stage that is thrown away, more of them cost nothing and cache better. DL3042
    # asks for no cache of pip, which is no part of an image here.
    linted = subprocess.run(
        [find_tool("hadolint"), "--no-color", "--ignore=DL3059", "--ignore=DL3042", DOCKERFILE],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (linted.returncode, linted.stdout) == (0, "")
    instructions = read_dockerfile()
    assert instructions[0] == ("ARG", "PYTHON_TAG=3.11.13-slim-bookworm")
    stages = [arguments.partition(" AS ")[::2] for name, arguments in instructions if name == "FROM"]
    assert {origin for origin, _ in stages} - {stage for _, stage in stages} == {"python:${PYTHON_TAG}"}
    for target in (*TARGETS, "bulk"):
        assert last_instruction(target, "USER") == "10001:10001"
        assert f"title=lychee-rerank-{target}" in last_instruction(target, "LABEL")
    for name, arguments in instructions:
        if name == "RUN" and " install " in arguments and "pip" in arguments:
            assert "--constraint constraints.txt" in arguments
            assert arguments.startswith("--mount=type=cache,target=/root/.cache/pip")


def test_compose_builds_each_image_from_its_target(services: dict[str, Any]) -> None:
    for target in TARGETS:
        service = services[target]
        assert service["image"] == f"lychee-rerank-{target}"
        assert (service["build"]["dockerfile"], service["build"]["target"]) == ("deploy/Dockerfile", target)
    # `docker build` without --target makes the last one.
    assert [arguments for name, arguments in read_dockerfile() if name == "FROM"][-1] == "base AS gateway"


def test_images_are_labelled_with_the_release() -> None:
    folder = ROOT / "deploy" / "release"
    said = subprocess.run(
        [sys.executable, "-c", "import version; print(version.RELEASE)"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert dockerfile_argument("VERSION") == said.stdout.strip()


def test_everything_that_is_copied_reaches_the_build() -> None:
    allowed = [
        line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")
    ]
    for name, arguments in read_dockerfile():
        if name == "COPY" and not arguments.startswith("--from"):
            for source in arguments.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert any(fnmatch.fnmatch(source, pattern) for pattern in allowed), source


def test_no_virtual_environment_and_no_model_reaches_a_build() -> None:
    first = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()[1]
    assert first == "*"
