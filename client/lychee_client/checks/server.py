"""Checks of a running server, for which its URL is enough."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from lychee_client._assets import CLIENT_ASSETS
from lychee_client._errors import LycheeError
from lychee_client.checks.check import Check, CheckContext, CheckResult, CheckSkipped
from lychee_client.manifest import FORMAT_VERSION, describe_reading
from lychee_client.transports.replica import ReplicaStatus
from lychee_client.types import ServerStatus

SLOW_ANSWER_S: Final = 1.0
CONNECT_TIMEOUT_S: Final = 2.0
METADATA_BYTES: Final = 4096
START_ADVICE: Final = (
    "start a server with `lychee load`, or name another with --url (gRPC is port 8001 by default, HTTP is "
    "http://HOST:8000, and a gateway http://HOST:7860)"
)


def check_server(context: CheckContext) -> Iterator[CheckResult]:
    """Something answers, it is a Triton, it is ready, and it is quick about it."""
    status = context.status
    if not status.live:
        yield CheckResult("server", "failed", f"{context.url}: {_describe_listener(context)}", START_ADVICE)
        return
    start = time.perf_counter()
    replicas = context.client.server_status().replicas
    took_s = time.perf_counter() - start
    who = _describe_gateway(status) if status.gateway else f"Triton {status.version or 'of unknown version'}"
    seen = f"{context.url}: {who} answers in {took_s * 1000:.1f} ms"
    if not status.ready:
        advice = "wait until its models are loaded; if that takes long, look into its log"
        reasons = "; ".join(dict.fromkeys(model.reason for model in status.models if model.reason))
        if reasons and status.gateway:
            advice = f"{reasons}; {advice}"
        yield CheckResult("server", "failed", f"{seen}, but is not ready", advice)
    elif status.gateway and (away := [model for model in status.models if not model.ready]):
        told = "; ".join(f"{model.name} is not ready: {model.reason or 'it gives no reason'}" for model in away)
        yield CheckResult("server", "warning", f"{seen}; {told}", "look at the server of that model, and into its log")
    elif took_s > SLOW_ANSWER_S:
        advice = "see what else uses the server's CPUs or the network"
        yield CheckResult("server", "warning", f"{seen}, expected at most {SLOW_ANSWER_S * 1000:.0f} ms", advice)
    else:
        yield CheckResult("server", "ok", f"{seen} and is ready")
    if replicas:
        yield _describe_replicas(replicas)


def _describe_replicas(replicas: Sequence[ReplicaStatus]) -> CheckResult:
    live = [replica.address for replica in replicas if replica.state == "live"]
    left_out = [f"{r.address} is {r.state} ({r.reason})" for r in replicas if r.state != "live"]
    seen = f"{len(live)} of {len(replicas)} take requests: {', '.join(live)}"
    if not left_out:
        return CheckResult("replicas", "ok", seen)
    return CheckResult("replicas", "warning", f"{seen}; {', '.join(left_out)}", "look into the logs of those left out")


def _describe_gateway(status: ServerStatus) -> str:
    served = ", ".join(f"{model.name} revision {model.version}" for model in status.models)
    return f"a gateway (REST) that serves {served or 'an unknown model'}"


def _describe_listener(context: CheckContext) -> str:
    """Say what is at an address where no Triton answers."""
    host, port = context.address
    try:
        with socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S):
            pass
    except ConnectionRefusedError:
        return "nobody listens there"
    except OSError as error:
        return f"it cannot be reached: {error}"
    connection = http.client.HTTPConnection(host, port, timeout=CONNECT_TIMEOUT_S)
    try:
        connection.request("GET", "/v2")
        response = connection.getresponse()
        answer = response.read(METADATA_BYTES)
    except (OSError, http.client.HTTPException):
        return f"something listens there, but does not answer as Triton's {context.scheme} endpoint"
    finally:
        connection.close()
    if b'"extensions"' in answer:
        return f"that is a Triton's HTTP port, but nothing there is live as {context.scheme}"
    if b'"request_id"' in answer:
        return f"a gateway listens there, which speaks HTTP: write http://{host}:{port}"
    software = response.getheader("Server") or "unnamed"
    return f"another HTTP server ({software}) listens there, and is no Triton: it answers {response.status}"


def check_manifest(context: CheckContext) -> Iterator[CheckResult]:
    """The server's manifest is one that this client can read."""
    manifest = context.manifest_or_error
    if isinstance(manifest, LycheeError):
        yield CheckResult("manifest", "failed", str(manifest), "bring client and exported model to the same version")
        return
    precision = manifest.identity.precision_text
    seen = f"{manifest.model_id} revision {manifest.revision}, {precision}, format version {FORMAT_VERSION}"
    yield CheckResult("manifest", "ok", "; ".join((seen, *describe_reading(manifest))))


def check_models(context: CheckContext) -> Iterator[CheckResult]:
    """Every model that the manifest names is ready, and every other that the server knows."""
    if not context.status.live:
        raise CheckSkipped("the server does not answer")
    readable = not isinstance(context.manifest_or_error, LycheeError)
    needed = (CLIENT_ASSETS, *context.manifest.max_batch_size) if readable else (CLIENT_ASSETS,)
    models = context.status.models
    ready = {model.name for model in models if model.ready}
    for name in needed:
        if name not in {model.name for model in models}:
            advice = "export the model again, and restart the server"
            yield CheckResult("models", "failed", f"the server does not know {name}, which this client needs", advice)
    for model in models:
        if not model.ready and model.name not in ready:
            seen = f"{model.name} is not ready: {model.reason or 'the server gives no reason'}"
            yield CheckResult("models", "failed", seen, "look into the server's log; `lychee status` lists all models")
        elif not model.ready:
            seen = f"{model.name} version {model.version} is not ready, another version is: {model.reason}"
            yield CheckResult("models", "warning", seen, "remove the version's folder, or export the model again")
    if ready >= {*needed, *(model.name for model in models)}:
        versions = ", ".join(f"{model.name} {model.version}" for model in models if model.ready)
        yield CheckResult("models", "ok", f"{len(ready)} models are ready: {versions}")


def check_golden_pairs(context: CheckContext) -> Iterator[CheckResult]:
    """The server scores as the reference did at the export."""
    if not context.manifest.golden_pairs.pairs:
        yield CheckResult("golden pairs", "warning", "the manifest holds none", "export the model again")
        return
    try:
        report = context.client.check_golden_pairs()
    except LycheeError as error:
        advice = "look into the server's log; until then nothing is known about its scores"
        yield CheckResult("golden pairs", "failed", f"they could not be scored: {error}", advice)
        return
    number, worst = max(enumerate(report.pairs, start=1), key=lambda numbered: numbered[1].abs_error)
    seen = (
        f"{len(report.pairs)} pairs, largest drift {report.max_abs_error:.2g} (pair {number}: expected "
        f"{worst.expected:.4f}, measured {worst.measured:.4f}), allowed {report.tolerance:g}"
    )
    if report.passed:
        yield CheckResult("golden pairs", "ok", seen)
    else:
        yield CheckResult("golden pairs", "failed", seen, "export the model again and restart the server")


SERVER_CHECKS: Final[Mapping[str, Check]] = {
    "server": check_server,
    "manifest": check_manifest,
    "models": check_models,
    "golden pairs": check_golden_pairs,
}
