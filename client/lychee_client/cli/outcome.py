"""How a command ends: the one prefix of what it says on standard error, and the exit codes of all commands.

An error that a command expects says its exit code: in an attribute `exit_code`, or by being a `LycheeError`.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import typer

from lychee_client._errors import ConfigurationError, LycheeError, LycheeWarning

PREFIX: Final = "lychee: "
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
"""The arguments, a variable or the configuration file cannot be used, or something is not installed."""
EXIT_NOT_RUNNING: Final = 3
EXIT_INTERRUPTED: Final = 130
"""Ctrl-C: 128 and the number of the signal."""
DEBUG_VARIABLE: Final = "LYCHEE_DEBUG"
ORIGINS: Final[dict[str, str]] = {}
"""Where the configuration file says what an environment variable holds, by the variable."""


def tell(message: str) -> None:
    """Say something on standard error."""
    typer.echo(PREFIX + message, err=True)


def warn(message: str) -> None:
    """Say what is doubtful on standard error."""
    tell(f"warning: {message}")


def exit_code_of(error: BaseException) -> int | None:
    """Return the exit code for an error that a command expects, or None."""
    if isinstance(error, LycheeError):
        return EXIT_USAGE if isinstance(error, ConfigurationError) else EXIT_FAILED
    code = None if isinstance(error, typer.Exit) else getattr(error, "exit_code", None)
    return code if isinstance(code, int) else None


def report(error: Exception) -> int:
    """Say what went wrong, and return the exit code; LYCHEE_DEBUG=1 shows where, too."""
    if os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0"):
        traceback.print_exception(error)
    code = exit_code_of(error)
    message = _describe(error, expected=code is not None)
    places = [f"{variable} is what {place} says" for variable, place in ORIGINS.items() if variable in message]
    tell(f"{message} ({'; '.join(places)})" if places else message)
    return EXIT_FAILED if code is None else code


@contextmanager
def reported_errors() -> Iterator[None]:
    """Turn an expected error, which ends the command, and every LycheeWarning into one message on standard error."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", LycheeWarning)
        warnings.showwarning = lambda message, *_: warn(str(message))
        try:
            yield
        except Exception as error:
            if exit_code_of(error) is None or _is_usage_error(error):  # the group knows what was used wrongly
                raise
            raise typer.Exit(report(error)) from error


def finish(code: object) -> int:
    """Write out what was printed, quietly even if the reader of the pipe has gone. Return the exit code."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is flushed at the very end
        return EXIT_FAILED
    return code if isinstance(code, int) else 0


def _describe(error: Exception, *, expected: bool) -> str:
    if _is_usage_error(error):
        return _describe_usage(error)
    if expected:
        return str(error)
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    text = " ".join(str(error).split())
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"unexpected {what}; {DEBUG_VARIABLE}=1 shows where. Please report it"


def _is_usage_error(error: Exception) -> bool:
    return hasattr(error, "format_message")


def _describe_usage(error: Exception) -> str:
    """Return what typer found wrong, as one line that names the page of help."""
    by_itself = isinstance(error, typer.BadParameter) and error.param is None and error.param_hint is None
    text: str = error.message if by_itself else error.format_message()  # type: ignore[attr-defined]
    context: typer.Context | None = getattr(error, "ctx", None)
    if context is None:
        return text
    words = text.replace("Value error, ", "").split()
    problem = " ".join(words).rstrip(".") or "a command is missing"  # without any, typer has printed the help
    return f"{problem}{_place_of(error, context)}; see `{context.command_path} --help`"


def _place_of(error: Exception, context: typer.Context) -> str:
    """Say it if the value comes from the configuration file: it is found by the option's name among its settings."""
    name = getattr(getattr(error, "param", None), "name", None)
    source = None if name is None else context.get_parameter_source(name)
    if source is None or source.name != "DEFAULT_MAP":
        return ""
    return f" (in the configuration file, section [{context.command_path.partition(' ')[2].replace(' ', '.')}])"
