"""How a running server is, as lines for people."""

from __future__ import annotations

import time
from collections.abc import Iterator

from lychee_server.defaults import MIB
from lychee_server.status import LocalServer, LocalTriton

__all__ = ["describe_server"]


def describe_server(current: LocalServer) -> Iterator[str]:
    """Yield the lines of `lychee status`."""
    first, *others = current.tritons
    ready = "Ready" if current.healthy else "Not ready"
    yield f"{ready}: {len(current.tritons)} models" if others else f"{ready}: {_describe_process(first)}"
    if current.gateway is not None:
        problem = f"  not ready: {current.gateway.problem}" if current.gateway.problem else ""
        yield f"  {'gateway':8} {current.gateway.url}{problem}"
    for triton in current.tritons:
        if others:
            yield f"{triton.name}: {'' if triton.healthy else 'not ready, '}{_describe_process(triton)}"
        yield from _describe_places(triton)
        yield from _describe_models(triton)
    for name, restarts in current.restarts.items():
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(restarts.at))
        yield f"  restarts {name} {restarts.count}, the last at {when}: {restarts.reason}"
    yield f"  memory: {current.rss_bytes // MIB} MiB resident, {current.pss_bytes // MIB} MiB without sharing"
    for process in current.processes:
        yield (
            f"    {process.name:28} pid {process.pid:<8} {process.rss_bytes // MIB:5} MiB resident, "
            f"{process.pss_bytes // MIB:5} MiB without sharing"
        )


def _describe_process(triton: LocalTriton) -> str:
    return f"pid {triton.pid}, up {triton.uptime_s:.0f} s"


def _describe_places(triton: LocalTriton) -> Iterator[str]:
    for label, value in (
        ("gRPC", triton.grpc_url),
        ("HTTP", f"http://{triton.http_url}"),
        ("metrics", triton.metrics_url),
        ("models", f"{triton.repository}{_describe_export(triton)}"),
        ("log", triton.log_path),
    ):
        yield f"  {label:8} {value}"


def _describe_models(triton: LocalTriton) -> Iterator[str]:
    for model in triton.models:
        line = f"  {model.name:24} {model.version:>3}  {model.state}"
        if model.provider is not None:
            line += f"  {model.provider}, {model.precision}"
        if model.precision_reason:
            line += f" ({model.precision_reason})"
        yield f"{line}  {model.reason}".rstrip()


def _describe_export(triton: LocalTriton) -> str:
    parts = [f"export {triton.version}"] if triton.version else []
    parts += [f"variant {triton.config_name}"] if triton.config_name else []
    return f"  ({', '.join(parts)})" if parts else ""
