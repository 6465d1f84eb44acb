"""What a gateway is configured with: name, type, limits, default and meaning of every setting, in one place."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from lychee_client import POLICIES
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from lychee_server.defaults import DEFAULT_HOST
from lychee_server.errors import SettingsError

ENVIRONMENT_PREFIX: Final = "LYCHEE_GATEWAY_"
DEFAULT_PORT: Final = 7860
_POSITIVE: Final = "a positive, finite number"
# What a message says was expected, by the type of pydantic's error.
_EXPECTED: Final = {
    "bool_parsing": "true or false",
    "finite_number": _POSITIVE,
    "float_parsing": "a number",
    "greater_than": _POSITIVE,
    "greater_than_equal": "at least {ge}",
    "int_parsing": "a whole number",
    "less_than_equal": "at most {le}",
    "literal_error": "one of {expected}",
    "value_error": "{error}",
}

LogLevel = Literal["ERROR", "WARNING", "INFO", "DEBUG"]


def _split(value: Any) -> Any:
    """Return the words of an environment variable; they are separated by spaces or commas."""
    return tuple(re.findall(r"[^\s,]+", value)) if isinstance(value, str) else value


def _lower(name: Any) -> Any:
    return name.lower() if isinstance(name, str) else name


def _upper(name: Any) -> Any:
    return name.upper() if isinstance(name, str) else name


def _check_policy(name: str) -> str:
    if name not in POLICIES:
        raise ValueError(f"one of {', '.join(POLICIES)}")
    return name


def _check_image_host(host: str) -> str:
    """Accept a host name or `*.` and a domain; refuse a URL, an address, and a wildcard for everything."""
    name = host.removeprefix("*.")
    try:
        ipaddress.ip_address(name)
        is_address = True
    except ValueError:
        is_address = False
    if is_address or not all(label and label.replace("-", "").isalnum() for label in name.split(".")):
        raise ValueError(
            "a host name such as images.example.org, or *.example.org for every subdomain, without scheme, port or "
            "path, and no address"
        )
    return host


def _check_allowed_host(host: str) -> str:
    if not re.fullmatch(r"(\*\.)?[\w.-]+|[0-9a-fA-F:]+", host, re.ASCII):
        raise ValueError(
            "a name such as rerank.example.org, *.example.org for every subdomain, or an address, without scheme, port "
            "or path"
        )
    return host


def _check_root_path(path: str) -> str:
    if path and (not path.startswith("/") or path.endswith("/")):
        raise ValueError("a path such as /rerank")
    return path


_Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
_ImageHosts = Annotated[
    tuple[Annotated[str, AfterValidator(_check_image_host)], ...], NoDecode, BeforeValidator(_split)
]
_AllowedHosts = Annotated[
    tuple[Annotated[str, AfterValidator(_check_allowed_host)], ...], NoDecode, BeforeValidator(_split)
]
REPEATED: Final = {
    "image_hosts": "--image-host",
    "allowed_hosts": "--allowed-host",
    "served_model_names": "--served-model-name",
}


class GatewaySettings(BaseSettings):
    """Checked settings of one gateway.

    What an argument does not say, the variable LYCHEE_GATEWAY_<NAME> does, and what neither says, the default. The
    options of `lychee gateway` and the table of the documentation are made from these fields. A field with `repr=False`
    may hold a secret or a path: neither messages nor the page show its value.

    Raises:
        SettingsError: One of them cannot be used.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX, env_ignore_empty=True, frozen=True, hide_input_in_errors=True
    )

    triton_url: str = Field(
        "localhost:8001",
        description="Triton: HOST:PORT for gRPC, http://HOST:PORT for HTTP; replicas: their name, or A:8001,B:8001.",
    )
    models: Path | None = Field(
        None,
        repr=False,
        description="File of several models: the Triton of each, and what is its own of these settings. The field "
        "`model` of a call chooses.",
    )
    host: str = Field(DEFAULT_HOST, description="Address to listen on; 0.0.0.0 for all.")
    port: int = Field(DEFAULT_PORT, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    web: bool = Field(True, description="Serve the web page beside the REST API.")
    max_img_size: int | None = Field(None, ge=1, description="Most pixels of one image, as the side of a square.")
    policy: Annotated[str, BeforeValidator(_lower), AfterValidator(_check_policy)] = Field(
        "balanced", description="Policy where a request names none: strict, balanced or exploratory."
    )
    calibration: Path | None = Field(
        None, repr=False, description="File of `lychee calibrate` that decides instead of the policy."
    )
    experiment: Path | None = Field(
        None, repr=False, description="File of an experiment: arms for users, and what differs between them."
    )
    timeout_s: _Seconds = Field(30.0, description="Seconds for one call, and the most that a request may name.")
    api_keys: _Words = Field(
        (), repr=False, description="Keys that open the gateway. Without any, it is open to everyone who reaches it."
    )
    api_keys_file: Path | None = Field(
        None, repr=False, description=f"File with one key per line; {ENVIRONMENT_PREFIX}API_KEYS works too."
    )
    image_hosts: _ImageHosts = Field(
        (), description="Host whose image URLs are fetched, *.example.org for subdomains. Repeat."
    )
    allowed_hosts: _AllowedHosts = Field(
        (),
        description="Name under which others reach the gateway, *.example.org for subdomains. Repeat. Without any, "
        "every name will do, but without keys on the loopback only its own.",
    )
    served_model_names: _Words = Field(
        (), description="Further name under which callers know the model; /v1/models lists it. Repeat."
    )
    refuse_other_models: bool = Field(
        False,
        description="Answer 404 to calls for a model of another name; else they get a warning. With several models "
        "they always get 404.",
    )
    strict_fields: bool = Field(
        False, description="Refuse fields and keys that are not known; else they are ignored with a warning."
    )
    max_request_mb: int = Field(64, ge=1, description="Largest request body in MiB.")
    max_documents: int = Field(1000, ge=1, description="Most documents of one request.")
    max_concurrency: int = Field(8, ge=1, description="Calls computed at the same time.")
    max_waiting: int = Field(64, ge=0, description="Calls that may wait for their turn; more are answered with 429.")
    cache_mb: int = Field(256, ge=0, description="Size of the embedding cache in MiB; 0 switches it off.")
    redis_url: str | None = Field(
        None, repr=False, description="Redis that keeps the embeddings instead, redis://HOST:PORT/0."
    )
    health_latency_ms: _Seconds = Field(5000.0, description="A pair that takes longer makes /health answer degraded.")
    drain_timeout_s: _Seconds = Field(30.0, description="Seconds that calls in flight get when the gateway stops.")
    log_level: Annotated[LogLevel, BeforeValidator(_upper)] = Field(
        "INFO", description="What is logged, as JSON lines on standard output."
    )
    error_log: Path | None = Field(
        None, repr=False, description="File that gets the errors too; otherwise standard error."
    )
    log_content: bool = Field(False, description="Write texts into the log; images and keys are never written.")
    root_path: Annotated[str, AfterValidator(_check_root_path)] = Field(
        "", description="Path under which a proxy serves the gateway, such as /rerank."
    )

    def __init__(self, **arguments: Any) -> None:
        try:
            super().__init__(**arguments)
        except ValidationError as error:
            named = {name: option_of(name) for name in arguments}
            raise SettingsError("; ".join(describe_problem(each, named) for each in error.errors())) from error


def variable_of(name: str) -> str:
    """Return the environment variable of a setting."""
    return ENVIRONMENT_PREFIX + name.upper()


def option_of(name: str) -> str:
    """Return the option of `lychee gateway` for a setting."""
    return REPEATED.get(name, f"--{name.replace('_', '-')}")


def describe_problem(problem: Mapping[str, Any], named: Mapping[str, str]) -> str:
    """Say what is wrong with one setting.

    Args:
        problem: One of pydantic's errors.
        named: What the settings are called where they were given; the others come from their variables.
    """
    name = str(problem["loc"][0])
    field = GatewaySettings.model_fields.get(name)
    if field is None:
        return f"{name} is no setting; expected one of {', '.join(GatewaySettings.model_fields)}"
    expected = _EXPECTED.get(problem["type"], problem["msg"]).format(**problem.get("ctx", {}))
    seen = f"is {problem['input']!r}" if field.repr else "cannot be used"
    return f"{named.get(name, variable_of(name))} {seen}; expected {expected}"
