"""The command `lychee gateway`: one gateway, in the foreground."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import typer
from lychee_client.cli.outcome import reported_errors

from lychee_server.gateway.settings import GatewaySettings, option_of, variable_of

VARIABLE_ONLY: Final = frozenset({"api_keys"})  # everyone on the machine can read the arguments of a process


def setting(name: str) -> Any:
    """Return the option of a setting, for `Annotated`."""
    field = GatewaySettings.model_fields[name]
    flag = option_of(name)
    flags = f"{flag}/--no-{flag.removeprefix('--')}" if field.annotation is bool else flag
    return typer.Option(flags, envvar=variable_of(name), help=field.description, metavar=_metavar(field.annotation))


def gateway(context: typer.Context, **options: Any) -> None:
    """Serve REST, health, metrics and the web page in front of a running Triton."""
    with reported_errors():
        settings = GatewaySettings(**{name: value for name, value in options.items() if _is_argument(context, name)})
        from lychee_server.gateway.server import serve  # FastAPI takes a while to import

        code = serve(settings)
    raise typer.Exit(code)


def _is_argument(context: typer.Context, name: str) -> bool:
    """Tell whether an option stands on the command line; the settings read variables and defaults themselves."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _metavar(annotation: Any) -> str | None:
    """Return what `--help` calls a value."""
    choices = get_args(annotation)
    if get_origin(annotation) is Literal:
        return f"<{'|'.join(choices)}>"
    kind = choices[0] if choices else annotation
    return None if kind is bool else f"<{kind.__name__.lower()}>"


def _parameters() -> Iterator[inspect.Parameter]:
    """Yield the parameters that Typer makes options from: all but switches as texts, for the settings to read."""
    kind = inspect.Parameter.KEYWORD_ONLY
    yield inspect.Parameter("context", kind, annotation=typer.Context)
    for name, field in GatewaySettings.model_fields.items():
        if name in VARIABLE_ONLY:
            continue
        read_as: Any = bool if field.annotation is bool else str | None
        default = field.default if field.annotation is bool or field.default is None else str(field.default)
        if field.default == ():  # an option that is repeated
            read_as, default = list[str] | None, None
        yield inspect.Parameter(name, kind, annotation=Annotated[read_as, setting(name)], default=default)


gateway.__signature__ = inspect.Signature(list(_parameters()))  # type: ignore[attr-defined]
