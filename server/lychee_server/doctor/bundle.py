"""A support bundle: what somebody else needs to see what is wrong here, without texts, images or keys."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import json
import os
import platform
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import psutil
from lychee_client.checks import CheckResult
from lychee_client.repository import ASSETS_MODEL, MANIFEST_FILENAME, newest_version

from lychee_server import defaults, state
from lychee_server.doctor.scrubbing import LEFT_OUT, Scrubber, find_secrets
from lychee_server.execution.device import describe_machine
from lychee_server.gateway.settings import GatewaySettings, option_of, variable_of
from lychee_server.local_http import exchange, fetch
from lychee_server.log_files import SIZE_VARIABLE, read_tail
from lychee_server.status import read_status

__all__ = ["MOST_BYTES", "write_bundle"]

MOST_BYTES: Final = 8 * defaults.MIB  # of all files together, before they are compressed
TAIL_BYTES: Final = 256 * 1024  # of each log
MOST_CONFIG_BYTES: Final = 64 * 1024
DEFAULT_REPOSITORY: Final = Path("model_repository")
JSON_LOGS: Final = ("gateway.log", "gateway.log.1", "gateway-errors.log")
OTHER_LOGS: Final = ("supervisor.log", "triton.log", "triton.log.1", "triton.*.log", "triton.*.log.1")
VARIABLES: Final = ("LYCHEE_", "CUDA_VISIBLE_DEVICES", "FORWARDED_ALLOW_IPS", "OMP_", "OPENBLAS_", "no_proxy")
OWN_VARIABLES: Final = ("CACHE_DIR", "DEVICE", "ERROR_BUDGET", "MAX_IMG_SIZE", "REPOSITORY", "STATE_DIR", "TIMEOUT_S")
SHOWN: Final = frozenset(
    {
        *(variable_of(name) for name, field in GatewaySettings.model_fields.items() if field.repr),
        *(f"LYCHEE_{name}" for name in OWN_VARIABLES),
        *(SIZE_VARIABLE, "LYCHEE_URL", "CUDA_VISIBLE_DEVICES", "FORWARDED_ALLOW_IPS", "no_proxy"),
        *("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS"),
    }
)
ABOUT: Final = """A support bundle of lychee-rerank, written {when}.

It holds no query, no document, no image and no key: keys, passwords and the names of users in paths were replaced, and
so was what the logs quote. Do read it before you send it on.

{server}
"""

Section = Callable[[], Iterator[tuple[str, str]]]


def write_bundle(
    *,
    checks: Sequence[CheckResult] | None = None,
    repository: Path | None = None,
    settings: GatewaySettings | None = None,
    metrics: bytes | None = None,
    served: Mapping[str, Any] | None = None,
) -> bytes:
    """Return a ZIP file. It takes a second or so, and blocks meanwhile. What cannot be had is named in it.

    Args:
        checks: What `lychee doctor` found; None: it was not asked.
        repository: The model repository; None: the running server's, or ./model_repository.
        settings: Those of the gateway that this process is; None: those of the running one, by its command line and
            its variables.
        metrics: Those of the gateway that this process is.
        served: What Triton, wherever it is, says of itself to the gateway that this process is.
    """
    known = state.read_state()
    running = known if known is not None and known.is_running() else None
    gateway = _find_gateway(running)
    variables = dict(os.environ) if gateway is None or settings is not None else _read_variables(gateway)
    secrets = [*find_secrets(os.environ), *find_secrets(variables), "" if known is None else known.triton_key]
    chosen = settings if settings is not None else _read_settings(gateway, variables)
    if chosen is not None:
        secrets += _setting_secrets(chosen)
    scrubber = Scrubber(secrets)
    folders = _find_repositories(repository, running)
    key = "" if running is None else running.triton_key

    def describe_configuration() -> Iterator[tuple[str, str]]:
        own = {name: value for name, value in variables.items() if name.startswith(VARIABLES)}
        told = {
            "of": "this process" if gateway is None or settings is not None else f"the gateway, pid {gateway.pid}",
            "settings": None if chosen is None else _show_settings(chosen),
            "variables": scrubber.scrub_variables(own, SHOWN),
        }
        yield "configuration.json", _dump(told)

    def describe_server() -> Iterator[tuple[str, str]]:
        if running is None:
            yield "server.json", _dump({"running": False, "gave_up": None if known is None else known.gave_up})
        else:
            yield "server.json", _dump({"running": True, **read_status(running).to_json()})

    def describe_served() -> Iterator[tuple[str, str]]:
        if served is not None:
            yield "served.json", _dump(served)

    def describe_checks() -> Iterator[tuple[str, str]]:
        if checks is not None:
            yield "checks.json", _dump([asdict(check) for check in checks])

    def gateway_metrics() -> Iterator[tuple[str, str]]:
        if metrics is not None:
            yield "gateway-metrics.txt", metrics.decode()
        elif running is not None and running.gateway is not None:
            key = next(iter(chosen.api_keys), "") if chosen is not None else ""
            headers = {"authorization": f"Bearer {key}"} if key else {}
            place = running.gateway
            status, body = exchange(place.host, place.port, "GET", "/metrics", timeout_s=5.0, headers=headers)
            yield "gateway-metrics.txt", body.decode() if status == http.client.OK else f"status {status}\n"

    def triton_numbers() -> Iterator[tuple[str, str]]:
        for triton in () if running is None else running.tritons:
            name = f"-{triton.name}" if triton.name else ""
            statistics = fetch(triton.host, triton.http_port, "GET", "/v2/models/stats", key=key)
            yield f"triton{name}-statistics.json", _dump(json.loads(statistics))
            yield f"triton{name}-metrics.txt", fetch(triton.host, triton.metrics_port, "GET", "/metrics").decode()

    sections: dict[str, Section] = {
        "versions": _describe_versions,
        "checks": describe_checks,
        "server": describe_server,
        "served": describe_served,
        "configuration": describe_configuration,
        "repository": lambda: _describe_repositories(folders, scrubber),
        "logs": lambda: _read_logs(defaults.state_dir(), scrubber),
        "gateway-metrics": gateway_metrics,
        "triton": triton_numbers,
    }
    pids = " and ".join(str(triton.pid) for triton in (() if running is None else running.tritons))
    said = f"The server has pid {pids}." if pids else "No server of this state folder was running."
    about = ABOUT.format(when=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), server=said)
    return _pack(about, sections, scrubber)


def _pack(about: str, sections: Mapping[str, Section], scrubber: Scrubber) -> bytes:
    target, left = io.BytesIO(), MOST_BYTES
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("README.txt", about)
        for section, read in sections.items():
            try:
                for name, text in read():
                    content = scrubber.scrub(text).encode("utf-8", "replace")
                    if len(content) > left:
                        content = f"left out: {len(content)} bytes, and the bundle has {MOST_BYTES} at most\n".encode()
                    archive.writestr(name, content)
                    left -= len(content)
            except Exception as error:  # a bundle is asked for when something is broken
                archive.writestr(f"{section}.missing.txt", scrubber.scrub(f"{type(error).__name__}: {error}\n"))
    return target.getvalue()


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1, default=str) + "\n"


def _describe_versions() -> Iterator[tuple[str, str]]:
    cpu: dict[str, str] = {}
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if name.strip() in ("model name", "flags"):
                cpu.setdefault(name.strip(), value.strip())
    packages = {each.metadata["Name"]: each.version for each in metadata.distributions()}
    told = {
        "python": sys.version,
        "system": platform.platform(),
        "distribution": _read_release(),
        "cpus": os.cpu_count(),
        "usable_cpus": len(os.sched_getaffinity(0)),
        "cpu": cpu,
        "memory_bytes": psutil.virtual_memory().total,
        "available_memory_bytes": psutil.virtual_memory().available,
        "gpu": describe_machine(),
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }
    yield "versions.json", _dump(told)


def _read_release() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return ""


def _find_gateway(running: state.ServerState | None) -> psutil.Process | None:
    return None if running is None or running.gateway is None else running.gateway.process.find()


def _read_variables(gateway: psutil.Process) -> dict[str, str]:
    try:
        return dict(gateway.environ())
    except psutil.Error:
        return {}


def _read_settings(gateway: psutil.Process | None, variables: Mapping[str, str]) -> GatewaySettings | None:
    """Return the settings of a running gateway; without one, those that a gateway would have here; None: unusable."""
    fields = GatewaySettings.model_fields
    given: dict[str, Any] = {name: field.default for name, field in fields.items()}
    given |= {name: variables[variable_of(name)] for name in fields if variables.get(variable_of(name))}
    try:
        words = [] if gateway is None else gateway.cmdline()
        options = {option_of(name): name for name in fields}
        given |= {options[word]: value for word, value in pairwise(words) if word in options}
        given["web"] = given["web"] if gateway is None else "--web" in words
        return GatewaySettings(**given)
    except (psutil.Error, ValueError):
        return None


def _show_settings(settings: GatewaySettings) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for name, field in GatewaySettings.model_fields.items():
        value = getattr(settings, name)
        shown[name] = value if field.repr else ("[set]" if value not in (None, ()) else None)
    return shown


def _setting_secrets(settings: GatewaySettings) -> list[str]:
    found = [*settings.api_keys, *find_secrets({"": settings.redis_url or ""})]
    if settings.api_keys_file is not None:
        with contextlib.suppress(OSError, UnicodeDecodeError):  # nobody is let in by what cannot be read
            found += settings.api_keys_file.read_text(encoding="utf-8-sig").split()
    return found


def _find_repositories(named: Path | None, running: state.ServerState | None) -> dict[str, Path]:
    """Return the repositories by their names in the bundle."""
    if named is not None:
        return {"repository": named}
    if running is not None:
        return {
            f"repository-{triton.name}" if triton.name else "repository": Path(triton.repository)
            for triton in running.tritons
        }
    return {"repository": DEFAULT_REPOSITORY} if DEFAULT_REPOSITORY.is_dir() else {}


def _describe_repositories(folders: Mapping[str, Path], scrubber: Scrubber) -> Iterator[tuple[str, str]]:
    for name, folder in folders.items():
        yield from _describe_repository(name, folder, scrubber)


def _describe_repository(name: str, folder: Path, scrubber: Scrubber) -> Iterator[tuple[str, str]]:
    """Yield manifest, configurations and a list of the files; golden pairs and instructions as numbers alone."""
    models = sorted(model for model in folder.iterdir() if model.is_dir())  # links to folders, too
    paths = [path for model in models for path in sorted(model.rglob("*")) if path.is_file()]
    yield f"{name}/files.json", _dump({str(path.relative_to(folder)): path.stat().st_size for path in paths})
    for path in paths:
        if path.suffix == ".pbtxt":
            text = path.read_text(encoding="utf-8", errors="replace")[:MOST_CONFIG_BYTES]
            yield f"{name}/{path.relative_to(folder)}", scrubber.scrub_config(text)
    manifest = json.loads((newest_version(folder / ASSETS_MODEL) / MANIFEST_FILENAME).read_text(encoding="utf-8"))
    golden = manifest.get("golden_pairs") or {}
    golden["pairs"] = [{"relevance_score": pair.get("relevance_score")} for pair in golden.get("pairs") or ()]
    if manifest.get("instruction"):
        digest = hashlib.sha256(str(manifest["instruction"]).encode()).hexdigest()
        manifest["instruction"] = f"{LEFT_OUT}; its SHA-256 is {digest}"
    yield f"{name}/manifest.json", _dump(manifest)


def _read_logs(folder: Path, scrubber: Scrubber) -> Iterator[tuple[str, str]]:
    """Yield the ends of the logs, scrubbed."""
    for names, scrub in ((JSON_LOGS, scrubber.scrub_gateway_log), (OTHER_LOGS, scrubber.scrub_log)):
        for path in [path for name in names for path in sorted(folder.glob(name))]:
            if path.is_file():
                yield f"logs/{path.name}", scrub(read_tail(path, TAIL_BYTES))
