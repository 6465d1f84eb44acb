"""Logs: one JSON object per line, on which stream, and nothing in them that a caller sent."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lychee_client import ConnectionFailedError, Image, InvalidInputError
from lychee_server.errors import SettingsError
from lychee_server.gateway.call_notes import CallNotes
from lychee_server.gateway.logs import JsonFormatter, configure_logging, describe_exception
from lychee_server.gateway.request_ids import use_request_id
from lychee_server.gateway.settings import GatewaySettings

CANARY = "canary"


def format_record(message: str = "told", *, name: str = "lychee_server", content: bool = False, **extra: Any) -> Any:
    record = logging.getLogger(name).makeRecord(name, logging.ERROR, "file", 1, message, (), **extra)
    text = JsonFormatter(content=content).format(record)
    assert "\n" not in text
    return json.loads(text)


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    """Return the exception with a traceback."""
    try:
        if cause is not None:
            try:
                raise cause
            except BaseException as inner:
                raise error from inner
        raise error
    except BaseException as caught:
        return caught


def test_a_record_is_one_json_object_with_time_in_utc() -> None:
    line = format_record("two\nlines – 中文", exc_info=None)
    assert line["time"].endswith("Z")
    assert {name: line[name] for name in ("level", "logger", "message")} == {
        "level": "ERROR",
        "logger": "lychee_server",
        "message": "two\nlines – 中文",
    }
    assert "request_id" not in line


def test_a_record_carries_the_request_id_and_its_fields() -> None:
    with use_request_id("shop-1"):
        line = format_record(exc_info=None, extra={"fields": {"status": 200, "path": Path("/x")}})
    assert (line["request_id"], line["status"], line["path"]) == ("shop-1", 200, "/x")


def test_an_exception_is_one_field() -> None:
    error = raised(ConnectionFailedError("cannot reach localhost:8001"))
    line = format_record(exc_info=(type(error), error, error.__traceback__))
    assert "in raised" in line["exception"]
    assert line["exception"].endswith("lychee_client._errors.ConnectionFailedError: cannot reach localhost:8001")


@pytest.mark.parametrize(
    "error",
    [
        ValueError(CANARY),
        KeyError(CANARY),
        InvalidInputError(f"document is {CANARY!r}"),
        UnicodeDecodeError("utf-8", CANARY.encode(), 0, 1, CANARY),
        ExceptionGroup(CANARY, [ValueError(CANARY), ExceptionGroup(CANARY, [KeyError(CANARY)])]),
    ],
)
def test_messages_that_may_quote_a_caller_stay_out(error: Exception) -> None:
    for shown in (raised(error), raised(RuntimeError(CANARY), cause=error), raised(OSError("full"), cause=error)):
        text = describe_exception(shown)
        assert CANARY not in text
        assert type(error).__name__ in text
        assert CANARY in describe_exception(shown, content=True)


def test_a_chain_of_exceptions_is_told_once() -> None:
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    assert describe_exception(first).count("builtins.") == 2


def test_what_asyncio_says_of_a_lost_task_leaves_its_exception_out(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async def fail() -> None:
            raise ValueError(CANARY)

        task = asyncio.create_task(fail())
        await asyncio.sleep(0)
        del task

    asyncio.run(test())
    (record,) = [record for record in caplog.records if record.name == "asyncio"]
    assert CANARY in record.getMessage()
    text = JsonFormatter().format(record)
    assert "Task exception was never retrieved" in text
    assert CANARY not in text


def test_notes_show_texts_only_on_demand_and_cut() -> None:
    notes = CallNotes(error_type=None)
    notes.note_call("q" * 5000, [CANARY, InvalidInputError("empty"), Image.from_bytes(b"")], content=True)
    assert notes.fields(content=False) == {"documents": 3, "modality": "mixed"}
    assert notes.fields(content=True)["texts"] == [CANARY, None]
    assert len(notes.fields(content=True)["query"]) == 1000


PROGRAM = """
import asyncio, logging, sys, warnings
from pathlib import Path
from lychee_client import LycheeWarning
from lychee_server.gateway.logs import configure_logging
from lychee_server.gateway.settings import GatewaySettings
path = Path(sys.argv[2]) if len(sys.argv) > 2 else None
configure_logging(GatewaySettings(log_level=sys.argv[1], error_log=path))
for name in ("lychee_server.access", "uvicorn.error", "PIL", "matplotlib", "asyncio"):
    for level in ("DEBUG", "INFO", "WARNING", "ERROR"):
        logging.getLogger(name).log(logging.getLevelName(level), f"{name} {level}")
warnings.warn("of a library")
warnings.warn("canary", LycheeWarning)
if path is not None:
    path.rename(path.with_suffix(".1"))
    logging.getLogger("lychee_server").error("after rotation")
"""


def run(*arguments: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Configure the logs in a process of their own; return what is on its standard output and error."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True, env=os.environ
    )
    assert "canary" not in done.stdout + done.stderr
    out, err = ([json.loads(line) for line in text.splitlines()] for text in (done.stdout, done.stderr))
    return out, err


def messages(lines: list[dict[str, Any]]) -> set[str]:
    return {line["message"] for line in lines}


def test_levels_and_streams_without_an_error_log() -> None:
    out, err = run("DEBUG")
    own = {f"{name} {level}" for name in ("lychee_server.access", "uvicorn.error") for level in ("DEBUG", "INFO")}
    assert own <= messages(out)
    assert not {
        f"{name} {level}" for name in ("PIL", "matplotlib", "asyncio") for level in ("DEBUG", "INFO")
    } & messages(out)
    errors = {f"{name} ERROR" for name in ("lychee_server.access", "uvicorn.error", "PIL", "matplotlib", "asyncio")}
    assert errors <= messages(out)
    assert messages(err) == errors
    (warning,) = [line for line in out if line["logger"] == "py.warnings"]
    assert "of a library" in warning["message"]


def test_level_error_and_an_error_log_that_is_rotated(tmp_path: Path) -> None:
    path = tmp_path / "errors.log"
    path.write_text('{"message": "of the run before"}\n', encoding="utf-8")
    out, err = run("ERROR", str(path))
    assert err == []
    assert {line["level"] for line in out} == {"ERROR"}
    rotated = [json.loads(line) for line in path.with_suffix(".1").read_text(encoding="utf-8").splitlines()]
    assert rotated[0]["message"] == "of the run before"
    assert messages(rotated[1:]) | {"after rotation"} == messages(out)
    assert [json.loads(line)["message"] for line in path.read_text(encoding="utf-8").splitlines()] == ["after rotation"]


def test_an_error_log_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--error-log is .*absent/errors\.log, .* \(No such file"):
        configure_logging(GatewaySettings(error_log=tmp_path / "absent" / "errors.log"))
