"""The command `lychee gateway`: one gateway, in the foreground."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from lychee_server.errors import LycheeServerError
from lychee_server.gateway import settings as defaults
from lychee_server.gateway.settings import GatewaySettings, LogLevel

ENVIRONMENT_PREFIX: Final = "LYCHEE_GATEWAY_"
KEYS_VARIABLE: Final = f"{ENVIRONMENT_PREFIX}API_KEYS"
EXIT_FAILED: Final = 1


def _option(variable: str, help: str, *flags: str, **limits: Any) -> Any:
    """Return an option that the environment variable LYCHEE_GATEWAY_<variable> can give too."""
    return typer.Option(*flags, envvar=ENVIRONMENT_PREFIX + variable, help=help, **limits)


def gateway(
    triton_url: Annotated[
        str, _option("TRITON_URL", "Triton: HOST:PORT for gRPC, http://HOST:PORT for HTTP.")
    ] = defaults.DEFAULT_TRITON_URL,
    triton_metrics_url: Annotated[
        str | None, _option("TRITON_METRICS_URL", "Triton's metrics, for the page's status tab.")
    ] = None,
    host: Annotated[str, _option("HOST", "Address to listen on; 0.0.0.0 for all.")] = defaults.DEFAULT_HOST,
    port: Annotated[
        int, _option("PORT", "Port to listen on; 0 picks a free one.", min=0, max=65535)
    ] = defaults.DEFAULT_PORT,
    web: Annotated[bool, _option("WEB", "Serve the web page too.")] = True,
    max_img_size: Annotated[
        int | None, _option("MAX_IMG_SIZE", "Most pixels of one image, as the side of a square.", min=1)
    ] = None,
    policy: Annotated[
        str, _option("POLICY", "Policy where a request names none: strict, balanced or exploratory.")
    ] = defaults.DEFAULT_POLICY,
    calibration_path: Annotated[
        Path | None, _option("CALIBRATION", "File of `lychee calibrate` that decides instead.", "--calibration")
    ] = None,
    timeout_s: Annotated[
        float, _option("TIMEOUT_S", "Seconds for one call, and the most that a request may name.")
    ] = defaults.DEFAULT_TIMEOUT_S,
    api_keys_path: Annotated[
        Path | None,
        _option("API_KEYS_FILE", f"File with one key per line; {KEYS_VARIABLE} works too.", "--api-keys-file"),
    ] = None,
    image_hosts: Annotated[
        list[str] | None,
        _option(
            "IMAGE_HOSTS", "Host whose image URLs are fetched, *.example.org for subdomains. Repeat.", "--image-host"
        ),
    ] = None,
    max_request_mb: Annotated[
        int, _option("MAX_REQUEST_MB", "Largest request body in MiB.", min=1)
    ] = defaults.DEFAULT_MAX_REQUEST_MB,
    max_documents: Annotated[
        int, _option("MAX_DOCUMENTS", "Most documents of one request.", min=1)
    ] = defaults.DEFAULT_MAX_DOCUMENTS,
    max_concurrency: Annotated[
        int, _option("MAX_CONCURRENCY", "Calls computed at the same time.", min=1)
    ] = defaults.DEFAULT_MAX_CONCURRENCY,
    max_waiting: Annotated[
        int, _option("MAX_WAITING", "Calls that may wait for their turn; more are answered with 429.", min=0)
    ] = defaults.DEFAULT_MAX_WAITING,
    cache_mb: Annotated[
        int, _option("CACHE_MB", "Size of the embedding cache in MiB; 0 switches it off.", min=0)
    ] = defaults.DEFAULT_CACHE_MB,
    redis_url: Annotated[
        str | None, _option("REDIS_URL", "Redis that keeps the embeddings instead, redis://HOST:PORT/0.")
    ] = None,
    health_latency_ms: Annotated[
        float, _option("HEALTH_LATENCY_MS", "A pair that takes longer makes /health answer degraded.")
    ] = defaults.DEFAULT_HEALTH_LATENCY_MS,
    drain_timeout_s: Annotated[
        float, _option("DRAIN_TIMEOUT_S", "Seconds that calls in flight get when the gateway stops.")
    ] = defaults.DEFAULT_DRAIN_TIMEOUT_S,
    log_level: Annotated[LogLevel, _option("LOG_LEVEL", "What is logged, as JSON lines.")] = "INFO",
    error_log_path: Annotated[
        Path | None, _option("ERROR_LOG", "File that gets the errors too; otherwise standard error.", "--error-log")
    ] = None,
    log_content: Annotated[bool, _option("LOG_CONTENT", "Write texts into the log.", "--log-content")] = False,
    root_path: Annotated[
        str, _option("ROOT_PATH", "Path under which a proxy serves the gateway, such as /rerank.")
    ] = "",
) -> None:
    """Serve REST, health, metrics and the web page in front of a running Triton."""
    options = {name: value for name, value in locals().items() if name != "image_hosts"}
    keys = tuple(re.findall(r"[^\s,]+", os.environ.get(KEYS_VARIABLE, "")))
    try:
        settings = GatewaySettings(api_keys=keys, image_hosts=tuple(image_hosts or ()), **options)
        from lychee_server.gateway.server import serve  # FastAPI and gradio take a while to import

        code = serve(settings)
    except LycheeServerError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(EXIT_FAILED) from error
    raise typer.Exit(code)
