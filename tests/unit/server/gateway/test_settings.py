"""The gateway's settings, and the command that reads them."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Any

import pytest
import typer
from lychee_server.errors import SettingsError
from lychee_server.gateway import cli, server
from lychee_server.gateway.settings import ENVIRONMENT_PREFIX, GatewaySettings, option_of, variable_of
from typer.testing import CliRunner, Result


class Command:
    """`lychee gateway`, which hands its settings over instead of serving."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings: GatewaySettings | None = None
        monkeypatch.setattr(server, "serve", self._serve)
        self._app = typer.Typer()
        self._app.command()(cli.gateway)

    def _serve(self, settings: GatewaySettings) -> int:
        self.settings = settings
        return 0

    def run(self, *arguments: str, **environment: str) -> Result:
        return CliRunner().invoke(self._app, arguments, env=environment)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Command:
    """Return the command, without variables of the user's."""
    for name in GatewaySettings.model_fields:
        monkeypatch.delenv(variable_of(name), raising=False)
    return Command(monkeypatch)


def test_without_options_the_command_has_the_settings_defaults(command: Command) -> None:
    assert command.run().exit_code == 0
    assert command.settings == GatewaySettings()


@pytest.mark.parametrize(
    ("field", "option", "variable", "text", "value"),
    [
        ("triton_url", "--triton-url", "TRITON_URL", "triton:8001", "triton:8001"),
        ("models", "--models", "MODELS", "m.toml", Path("m.toml")),
        ("host", "--host", "HOST", "0.0.0.0", "0.0.0.0"),
        ("port", "--port", "PORT", "0", 0),
        ("web", "--no-web", "WEB", "false", False),
        ("max_img_size", "--max-img-size", "MAX_IMG_SIZE", "256", 256),
        ("policy", "--policy", "POLICY", "strict", "strict"),
        ("calibration", "--calibration", "CALIBRATION", "c.json", Path("c.json")),
        ("experiment", "--experiment", "EXPERIMENT", "e.toml", Path("e.toml")),
        ("timeout_s", "--timeout-s", "TIMEOUT_S", "1.5", 1.5),
        ("api_keys", None, "API_KEYS", "one, two three", ("one", "two", "three")),
        ("api_keys_file", "--api-keys-file", "API_KEYS_FILE", "k.txt", Path("k.txt")),
        ("image_hosts", "--image-host", "IMAGE_HOSTS", "*.example.org", ("*.example.org",)),
        ("allowed_hosts", "--allowed-host", "ALLOWED_HOSTS", "*.example.org", ("*.example.org",)),
        ("served_model_names", "--served-model-name", "SERVED_MODEL_NAMES", "rerank-v3.5", ("rerank-v3.5",)),
        ("refuse_other_models", "--refuse-other-models", "REFUSE_OTHER_MODELS", "true", True),
        ("strict_fields", "--strict-fields", "STRICT_FIELDS", "true", True),
        ("max_request_mb", "--max-request-mb", "MAX_REQUEST_MB", "2", 2),
        ("max_documents", "--max-documents", "MAX_DOCUMENTS", "5", 5),
        ("max_concurrency", "--max-concurrency", "MAX_CONCURRENCY", "3", 3),
        ("max_waiting", "--max-waiting", "MAX_WAITING", "0", 0),
        ("cache_mb", "--cache-mb", "CACHE_MB", "0", 0),
        ("redis_url", "--redis-url", "REDIS_URL", "redis://r:1/0", "redis://r:1/0"),
        ("health_latency_ms", "--health-latency-ms", "HEALTH_LATENCY_MS", "9", 9.0),
        ("drain_timeout_s", "--drain-timeout-s", "DRAIN_TIMEOUT_S", "9", 9.0),
        ("log_level", "--log-level", "LOG_LEVEL", "DEBUG", "DEBUG"),
        ("error_log", "--error-log", "ERROR_LOG", "e.log", Path("e.log")),
        ("log_content", "--log-content", "LOG_CONTENT", "true", True),
        ("root_path", "--root-path", "ROOT_PATH", "/rerank", "/rerank"),
    ],
)
def test_every_setting_has_an_option_and_a_variable(
    command: Command, field: str, option: str | None, variable: str, text: str, value: Any
) -> None:
    command.run(**{ENVIRONMENT_PREFIX + variable: text})
    assert getattr(command.settings, field) == value != getattr(GatewaySettings(), field)
    if option is not None:
        command.settings = None
        command.run(option, *([] if isinstance(value, bool) else [text]))
        assert getattr(command.settings, field) == value


def test_the_table_above_is_complete() -> None:
    (mark,) = test_every_setting_has_an_option_and_a_variable.pytestmark  # type: ignore[attr-defined]
    assert [case[0] for case in mark.args[1]] == list(GatewaySettings.model_fields)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("policy", "lenient", "--policy is 'lenient'; expected one of strict"),
        ("max_request_mb", 0, "--max-request-mb is 0; expected at least 1"),
        ("max_waiting", -1, "--max-waiting is -1; expected at least 0"),
        ("timeout_s", 0.0, "--timeout-s is 0.0; expected a positive"),
        ("timeout_s", float("nan"), "--timeout-s is nan"),
        ("drain_timeout_s", float("inf"), "--drain-timeout-s is inf"),
        ("image_hosts", ("*",), "--image-host is '*'"),
        ("image_hosts", ("127.0.0.1",), "no address"),
        ("image_hosts", ("http://example.org",), "without scheme"),
        ("image_hosts", ("example.org:8080",), "port"),
        ("allowed_hosts", ("https://example.org",), "--allowed-host is 'https://example.org'; expected a name"),
        ("allowed_hosts", ("example.org:8080",), "without scheme, port or path"),
        ("allowed_hosts", ("*",), "--allowed-host is '*'"),
        ("root_path", "rerank", "--root-path is 'rerank'; expected a path such as /rerank"),
        ("root_path", "/rerank/", "expected a path"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(name: str, value: Any, expected: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(expected)):
        GatewaySettings(**{name: value})


def test_the_command_says_what_is_wrong(command: Command) -> None:
    result = command.run("--policy", "lenient")
    assert result.exit_code == 2
    assert "lychee: --policy is 'lenient'" in result.output


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("port", "http", "is 'http'; expected a whole number"),
        ("port", "65536", "is '65536'; expected at most 65535"),
        ("max_img_size", "0", "is '0'; expected at least 1"),
        ("timeout_s", "soon", "is 'soon'; expected a number"),
        ("log_level", "LOUD", "is 'LOUD'; expected one of 'ERROR'"),
        ("image_hosts", "a.example,*", "is '*'; expected a host name"),
    ],
)
def test_a_message_names_where_the_value_came_from(command: Command, name: str, text: str, expected: str) -> None:
    result = command.run(**{variable_of(name): text})
    assert (result.exit_code, command.settings) == (2, None)
    assert f"lychee: {variable_of(name)} {expected}" in result.output
    result = command.run(option_of(name), text.split(",")[-1])
    assert result.exit_code == 2
    assert f"lychee: {option_of(name)} {expected}" in result.output


def test_an_option_beats_its_variable_and_an_empty_variable_says_nothing(command: Command) -> None:
    command.run("--port", "1", "--web", LYCHEE_GATEWAY_PORT="2", LYCHEE_GATEWAY_WEB="false", LYCHEE_GATEWAY_HOST="")
    assert command.settings is not None
    assert (command.settings.port, command.settings.web, command.settings.host) == (1, True, "127.0.0.1")


def test_hosts_in_a_variable_are_separated_by_spaces_or_commas(command: Command) -> None:
    command.run(LYCHEE_GATEWAY_IMAGE_HOSTS="a.example, b.example *.c.example")
    assert command.settings is not None
    assert command.settings.image_hosts == ("a.example", "b.example", "*.c.example")


def test_no_message_and_no_representation_holds_a_secret() -> None:
    secret = "canary-7c1"
    assert secret not in repr(GatewaySettings(api_keys=(secret,), redis_url=f"redis://:{secret}@cache/0"))
    for wrong in ({"api_keys": ({secret: 1},)}, {"redis_url": [secret]}):
        with pytest.raises(SettingsError, match="cannot be used") as raised:
            GatewaySettings(**wrong)
        assert secret not in "".join(traceback.format_exception(raised.value))


def test_a_setting_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SettingsError, match="triton_metrics_url is no setting; expected one of triton_url, models"):
        GatewaySettings(triton_metrics_url="http://127.0.0.1:8002/metrics")
