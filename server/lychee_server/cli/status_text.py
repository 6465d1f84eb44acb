"""How a running server is, as lines for people."""

from __future__ import annotations

import time
from collections.abc import Iterator

from lychee_server.defaults import MIB
from lychee_server.status import LocalServer

__all__ = ["describe_server"]


def describe_server(current: LocalServer) -> Iterator[str]:
    """Yield the lines of `lychee status`."""
    yield f"{'Ready' if current.healthy else 'Not ready'}: pid {current.pid}, up {current.uptime_s:.0f} s"
    if current.gateway is not None:
        problem = f"  not ready: {current.gateway.problem}" if current.gateway.problem else ""
        yield f"  {'gateway':8} {current.gateway.url}{problem}"
    for label, value in (
        ("gRPC", current.grpc_url),
        ("HTTP", f"http://{current.http_url}"),
        ("metrics", current.metrics_url),
        ("models", f"{current.repository}{_describe_export(current)}"),
        ("log", current.log_path),
    ):
        yield f"  {label:8} {value}"
    for name, restarts in current.restarts.items():
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(restarts.at))
        yield f"  restarts {name} {restarts.count}, the last at {when}: {restarts.reason}"
    for model in current.models:
        line = f"  {model.name:24} {model.version:>3}  {model.state}"
        if model.provider is not None:
            line += f"  {model.provider}, {model.precision}"
        if model.precision_reason:
            line += f" ({model.precision_reason})"
        yield f"{line}  {model.reason}".rstrip()
    yield f"  memory: {current.rss_bytes // MIB} MiB resident, {current.pss_bytes // MIB} MiB without sharing"
    for process in current.processes:
        yield (
            f"    {process.name:28} pid {process.pid:<8} {process.rss_bytes // MIB:5} MiB resident, "
            f"{process.pss_bytes // MIB:5} MiB without sharing"
        )


def _describe_export(current: LocalServer) -> str:
    parts = [f"export {current.version}"] if current.version else []
    parts += [f"variant {current.config_name}"] if current.config_name else []
    return f"  ({', '.join(parts)})" if parts else ""
