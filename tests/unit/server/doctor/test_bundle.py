"""The support bundle: what is in it, and that no key, password, text or image is, wherever it had been."""

from __future__ import annotations

import base64
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
from fakes.dual_encoder import manifest_json
from fakes.server_state import make_state, make_triton
from lychee_client.checks import CheckResult
from lychee_server import state
from lychee_server.defaults import state_dir
from lychee_server.doctor import bundle as support_bundle
from lychee_server.doctor.bundle import write_bundle
from lychee_server.gateway.settings import GatewaySettings
from lychee_server.processes import ProcessId

KEY = "key-canary-4711"
PASSWORD = "password/canary@4712"
QUERY = "a query about canary 4713"
CHINESE = "金丝雀四七一四"
IMAGE = base64.b64encode(b"canary4715" * 30).decode()
USER = "canary4716"
HIDDEN = (KEY, PASSWORD, "canary@4712", QUERY, CHINESE, IMAGE[:40], USER, "canary")
EVERYTHING = f"Authorization: Bearer {KEY} redis://:{PASSWORD}@cache:6379/0 '{QUERY}' {CHINESE} {IMAGE} /home/{USER}/x"


def read(bundle: bytes) -> dict[str, str]:
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository whose manifest, configurations and files have something to hide."""
    folder = tmp_path / "models"
    (folder / "client_assets" / "1").mkdir(parents=True)
    (folder / "encoder" / "configs").mkdir(parents=True)
    pair = {"query": {"text": QUERY}, "document": {"image_png_base64": IMAGE}, "relevance_score": 0.5}
    manifest = json.loads(
        manifest_json(
            model_id=f"/home/{USER}/model",
            revision="1",
            precision="fp32",
            artifacts={"tokenizer": "0" * 64},
            golden_pairs={"tolerance": 0.02, "pairs": [pair]},
            instruction={"default": QUERY, "query_prefix": "{instruction}"},
        )
    )
    (folder / "client_assets" / "1" / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    config = f'''# {EVERYTHING}
name: "encoder"  # "{QUERY}"
parameters {{ key: "api_key" value {{ string_value: "{KEY}-2" }} }}
parameters {{ key: "store" value {{ string_value: "redis://:{PASSWORD}@cache" }} }}
parameters {{ key: "colour" value {{ string_value: "#fff" }} }}
'''
    for path in (folder / "encoder" / "config.pbtxt", folder / "encoder" / "configs" / "cpu.pbtxt"):
        path.write_text(config, encoding="utf-8")
    return folder


def write_logs(folder: Path) -> None:
    """Write every log as it could be, with texts switched on, and with what other code prints."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = '  File "/opt/lychee/app.py", line 7, in call\n    raise ValueError(query)\n'
    lines = [
        {"time": "2026-11-27T10:00:00.000Z", "level": "INFO", "logger": "lychee_server.access", "message": "request",
         "request_id": "shop-1", "route": "/v1/rerank", "status": 200, "query": QUERY, "texts": [QUERY, CHINESE, None],
         "client": "203.0.113.7", "latency_ms": 7.5, "user": USER},
        {"level": "ERROR", "logger": "lychee_server.gateway", "message": "failed",
         "exception": f"{frames}builtins.ValueError: {QUERY}\n{QUERY}\ncaused by:\n{frames}redis.Error: {PASSWORD}"},
        {"level": "WARNING", "logger": "py.warnings", "message": EVERYTHING, "nested": {"key": KEY}},
        {"level": "WARNING", "logger": "lychee_server.keys", "message": f"x-api-key: {KEY} of /home/{USER}/keys"},
    ]  # fmt: skip
    text = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    for name in ("gateway.log", "gateway.log.1", "gateway-errors.log"):
        (folder / name).write_text(f"{text}\n{EVERYTHING}\n{frames}ValueError: {QUERY}\n", encoding="utf-8")
    header = "E1127 10:00:00.123456 99 model_lifecycle.cc:638] "
    triton = f"""{header}"failed to load 'text_encoder' version 1: Internal: bad \\"{QUERY}\\" and '{CHINESE}'"
{header}{EVERYTHING}
ValueError: cannot read '{QUERY}'
"""
    for name in ("triton.log", "triton.log.1", "supervisor.log"):
        (folder / name).write_text(triton, encoding="utf-8")


@pytest.mark.parametrize("as_gateway", [False, True])
def test_nothing_that_was_planted_in_any_source_is_in_the_bundle(
    repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, as_gateway: bool
) -> None:
    write_logs(state_dir())
    keys = tmp_path / "keys"
    keys.write_text(f"# ours\n{KEY}\n", encoding="utf-8")
    variables = {
        "LYCHEE_GATEWAY_API_KEYS": f"{KEY},{KEY}-2",
        "LYCHEE_GATEWAY_API_KEYS_FILE": str(keys),
        "LYCHEE_GATEWAY_REDIS_URL": f"redis://:{PASSWORD}@cache:6379/0",
        "LYCHEE_GATEWAY_ERROR_LOG": f"/home/{USER}/errors.log",
        "LYCHEE_API_KEY": KEY,
        "LYCHEE_TRITON_KEY": f"{KEY}-3",
        "LYCHEE_NOTE": EVERYTHING,
        "LYCHEE_REPOSITORY": f"/home/{USER}/models",
        "LYCHEE_GATEWAY_POLICY": "strict",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    dead = make_state(make_triton(repository=str(repository)), triton_key=f"{KEY}-3", gave_up=f"/home/{USER}: {KEY}-3")
    state.write_state(dead)
    checks = [CheckResult("state", "failed", f"/home/{USER} {KEY}", f"Authorization: Bearer {KEY}")]
    settings, metrics = (GatewaySettings(), EVERYTHING.encode()) if as_gateway else (None, None)
    if metrics is not None:
        metrics = f'lychee_calls{{key="{KEY}"}} 1\nlychee_path{{of="/home/{USER}/x"}} 1\n'.encode()
    bundle = write_bundle(checks=checks, repository=repository, settings=settings, metrics=metrics)
    files = read(bundle)
    for name, text in files.items():
        for hidden in HIDDEN:
            assert hidden not in text, (name, text)
        assert not name.endswith("missing.txt"), text
    assert ("gateway-metrics.txt" in files) == as_gateway
    _check_what_stays(files)


def _check_what_stays(files: dict[str, str]) -> None:
    """See that the scrubbing leaves what helps."""
    first, second, third, *_ = map(json.loads, files["logs/gateway.log"].splitlines()[:3])
    assert (first["request_id"], first["status"], first["latency_ms"]) == ("shop-1", 200, 7.5)
    assert second["exception"].splitlines()[0] == '  File "/opt/lychee/app.py", line 7, in call'
    assert "builtins.ValueError" in second["exception"]
    assert third["message"] == "[left out]"
    assert "[a line that is not JSON was left out]" in files["logs/gateway.log"]
    assert "failed to load 'text_encoder' version 1: Internal: bad" in files["logs/triton.log"]
    configuration = json.loads(files["configuration.json"])
    assert configuration["settings"]["policy"] == "strict"
    assert configuration["settings"]["api_keys"] == "[set]"
    assert configuration["variables"]["LYCHEE_GATEWAY_POLICY"] == "strict"
    assert configuration["variables"]["LYCHEE_NOTE"] == "[set]"
    assert 'string_value: "#fff"' in files["repository/encoder/configs/cpu.pbtxt"]
    manifest = json.loads(files["repository/manifest.json"])
    assert manifest["golden_pairs"]["pairs"] == [{"relevance_score": 0.5}]
    assert manifest["artifacts"] == {"tokenizer": "0" * 64}
    assert json.loads(files["checks.json"])[0]["verdict"] == "failed"


def test_without_a_server_the_bundle_says_so_and_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = read(write_bundle())
    assert "No server of this state folder was running." in files["README.txt"]
    assert json.loads(files["server.json"]) == {"running": False, "gave_up": None}
    versions = json.loads(files["versions.json"])
    assert versions["packages"]["lychee-rerank-server"]
    assert versions["cpu"]["flags"]
    assert set(files) == {"README.txt", "versions.json", "server.json", "configuration.json"}


def test_a_source_that_fails_costs_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: Any) -> Any:
        raise PermissionError(13, "Permission denied", f"/home/{USER}/models")

    monkeypatch.setattr(support_bundle, "_describe_repository", fail)
    files = read(write_bundle(repository=tmp_path))
    assert "PermissionError" in files["repository.missing.txt"]
    assert USER not in files["repository.missing.txt"]
    assert "configuration.json" in files


def test_a_dead_triton_is_named_and_the_rest_is_there() -> None:
    own = ProcessId.of(os.getpid())
    state.write_state(make_state(make_triton(pid=own.pid, start_ticks=own.start_ticks, repository="none")))
    files = read(write_bundle())
    assert "ConnectionRefusedError" in files["triton.missing.txt"]
    assert json.loads(files["server.json"])["healthy"] is False


def test_the_bundle_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = state_dir()
    folder.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"logger": "lychee_server", "message": "x" * 100}) + "\n"
    (folder / "gateway.log").write_text(line * 20_000, encoding="utf-8")
    files = read(write_bundle())
    assert len(files["logs/gateway.log"]) <= support_bundle.TAIL_BYTES
    assert json.loads(files["logs/gateway.log"].splitlines()[0])["message"] == "x" * 100
    monkeypatch.setattr(support_bundle, "MOST_BYTES", 100_000)
    assert read(write_bundle())["logs/gateway.log"].startswith("left out: ")
