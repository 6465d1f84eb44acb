"""The configuration file: argument, environment, file, default."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from lychee_client.cli import add_commands, app, options, outcome
from lychee_client.cli.config_file import SECRETS, apply_config, list_sections, read_config
from lychee_server.gateway.settings import GatewaySettings, variable_of
from typer.testing import CliRunner, Result

Run = Callable[..., Result]
FILE = """
[client]
url = "localhost:7"
api-key = "sekret"
timeout = 5

[rerank]
url = "localhost:8"
top-n = 3

[load]
port = 9000

[gateway]
port = 9001
image-host = ["a.example", "*.b.example"]
api-keys = ["k1", "k2"]
web = false
cache-mb = 7
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in an empty folder, with no configuration of a user and an environment that is put back."""
    if "export" not in {command.name for command in app.registered_commands}:
        add_commands(app)
    before = dict(os.environ)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lychee_client.cli.config_file.platformdirs.user_config_path", lambda _: tmp_path / "user")
    for name in [name for name in os.environ if name.startswith("LYCHEE_")]:
        del os.environ[name]
    os.environ["COLUMNS"] = "300"
    yield tmp_path
    os.environ.clear()
    os.environ.update(before)
    outcome.ORIGINS.clear()


@pytest.fixture
def file(folder: Path) -> Path:
    """Write a configuration file that only its owner may read."""
    return write(folder / "lychee.toml", FILE)


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, prog_name="lychee")


def values(*arguments: str) -> dict[str, tuple[Any, str]]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["values"]
    return {f"{one['section']}.{one['key']}": (one["value"], one["origin"]) for one in found}


def sections() -> Any:
    return list_sections(typer.main.get_command(app))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Return the URLs that commands connect to."""
    urls: list[str | None] = []

    def make_client(url: str | None, **_: Any) -> None:
        urls.append(url)
        raise outcome.LycheeError("that is enough")

    monkeypatch.setattr(options, "LycheeClient", make_client)
    return urls


def test_argument_goes_before_environment_before_file_before_default(file: Path, asked: list[str | None]) -> None:
    run("rerank", "--query", "x", "--url", "localhost:1", "a.txt")
    os.environ["LYCHEE_URL"] = "localhost:2"
    run("rerank", "--query", "x", "a.txt")
    del os.environ["LYCHEE_URL"]
    run("rerank", "--query", "x", "a.txt")  # its own section goes before [client]
    run("score", "--query", "x", "--text", "y")
    del os.environ["LYCHEE_URL"]  # what the last command has put there
    file.unlink()
    run("score", "--query", "x", "--text", "y")
    assert asked == ["localhost:1", "localhost:2", "localhost:8", "localhost:7", None]


def test_shared_sections_reach_a_command_as_variables_unless_its_own_section_says_otherwise(file: Path) -> None:
    config = read_config(file, sections())
    environment = {"LYCHEE_GATEWAY_CACHE_MB": "1", "LYCHEE_URL": ""}
    found = apply_config(config, "load", environment)
    assert environment == {
        "LYCHEE_URL": "localhost:7",
        "LYCHEE_API_KEY": "sekret",
        "LYCHEE_TIMEOUT_S": "5",
        "LYCHEE_GATEWAY_CACHE_MB": "1",
        "LYCHEE_GATEWAY_IMAGE_HOSTS": "a.example *.b.example",
        "LYCHEE_GATEWAY_API_KEYS": "k1 k2",
        "LYCHEE_GATEWAY_WEB": "false",
    }
    assert found["load"] == {"port": "9000"}
    apply_config(config, "gateway", environment)
    assert environment["LYCHEE_GATEWAY_PORT"] == "9001"


def test_the_gateway_alone_has_its_settings_from_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[GatewaySettings] = []
    monkeypatch.setattr("lychee_server.gateway.server.serve", lambda settings: seen.append(settings) or 0)
    os.environ["LYCHEE_GATEWAY_CACHE_MB"] = "8"
    result = run("gateway", "--port", "1234")
    assert result.exit_code == 0, result.output
    (settings,) = seen
    assert (settings.port, settings.web, settings.cache_mb) == (1234, False, 8)
    assert (settings.image_hosts, settings.api_keys) == (("a.example", "*.b.example"), ("k1", "k2"))


def test_every_setting_of_the_gateway_is_a_key_of_its_section() -> None:
    variables = {key.variable for key in sections()["gateway"].values()}
    assert variables == {variable_of(name) for name in GatewaySettings.model_fields}


def test_what_the_settings_keep_secret_is_masked() -> None:
    hidden = {name.replace("_", "-") for name, field in GatewaySettings.model_fields.items() if not field.repr}
    assert hidden.union({"api-key"}) >= SECRETS


def test_show_says_where_each_value_comes_from_and_masks_secrets(file: Path) -> None:
    os.environ["LYCHEE_GATEWAY_CACHE_MB"] = "8"
    found = values("config", "show")
    assert found["load.port"] == ("9000", "lychee.toml, line 12")
    assert found["gateway.port"] == ("9001", "lychee.toml, line 15")
    assert found["gateway.cache-mb"] == ("8", "LYCHEE_GATEWAY_CACHE_MB")
    assert found["gateway.policy"] == ("balanced", "default")
    assert found["gateway.api-keys"] == ("***", "lychee.toml, line 17")
    assert found["score.url"] == ("localhost:7", "lychee.toml, line 3")
    assert found["instructions.list.language"] == (None, "default")
    assert "config.show.changed" not in found
    shown = run("config", "show").stdout
    assert "sekret" not in shown
    assert "k1" not in shown
    assert set(values("config", "show", "load", "--changed")) == {"load.port", "load.web"}
    assert run("config", "show", "lode").exit_code == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[gatway]\n", "lychee.toml, line 1: section [gatway] is not known; did you mean [gateway]?"),
        ("[load]\nhttp-prot = 1\n", "line 2: section [load] has no key 'http-prot'; did you mean http-port?"),
        ("[load]\nno-web = true\n", "has no key 'no-web'"),
        ("[load]\nweb = 'no'\n", "line 2: [load] web is 'no'; expected true or false"),
        ("[load]\nport = [1]\n", "line 2: [load] port is [1]; expected a text or a number"),
        ("[gateway]\napi-keys = true\n", "line 2: [gateway] api-keys; expected texts or numbers"),
        ("port = 1\n", "line 1: 'port' is in no section of a command; expected it below a line such as [load]"),
        ("[load]\nhttp-port = 'x'\n", "'--http-port'"),
        ("[load]\nhttp-port = 'x'\n", "(in the configuration file, section [load])"),
        ("[gateway]\npolicy = 'odd'\n", "(LYCHEE_GATEWAY_POLICY is what lychee.toml, line 2 says)"),
        ("[load", "lychee.toml is no TOML"),
    ],
)
def test_what_the_file_may_not_say_is_told_with_its_line(folder: Path, text: str, message: str) -> None:
    write(folder / "lychee.toml", text)
    result = run("load", "--repository", "nowhere")
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_sections_of_commands_that_are_not_installed_are_passed_over(file: Path) -> None:
    known = {name: keys for name, keys in sections().items() if name in ("rerank", "score", "client")}
    assert set(read_config(file, known).sections) == {"client", "rerank"}


def test_the_file_is_the_first_of_four(folder: Path, file: Path) -> None:
    write(folder / "user" / "lychee.toml", "")
    write(folder / "named.toml", "")
    write(folder / "variable.toml", "")
    os.environ["LYCHEE_CONFIG"] = "variable.toml"
    assert run("--config", "named.toml", "config", "path").stdout == f"{folder / 'named.toml'}\n"
    assert run("config", "path").stdout == f"{folder / 'variable.toml'}\n"
    del os.environ["LYCHEE_CONFIG"]
    assert run("config", "path").stdout == f"{file}\n"
    file.unlink()
    assert run("config", "path").stdout == f"{folder / 'user' / 'lychee.toml'}\n"
    (folder / "user" / "lychee.toml").unlink()
    none = run("config", "path")
    assert (none.exit_code, none.stdout) == (1, "")
    missing = run("--config", "missing.toml", "status")
    assert (missing.exit_code, "--config is 'missing.toml', which is no file" in missing.stderr) == (2, True)


def test_keys_that_everyone_may_read_get_a_warning(file: Path) -> None:
    assert run("config", "show", "load").stderr == ""
    file.chmod(0o644)
    warning = run("config", "show", "load").stderr
    assert warning.startswith("lychee: warning: lychee.toml holds [client] api-key, [gateway] api-keys, and everyone")
    assert "chmod 600 lychee.toml" in warning
    assert "sekret" not in warning
    write(file, "[load]\nport = 1\n", 0o644)
    assert run("config", "show", "load").stderr == ""


def test_init_writes_every_option_commented_out_and_readable_as_it_is(folder: Path) -> None:
    result = run("config", "init")
    assert result.exit_code == 0, result.output
    path = folder / "lychee.toml"
    assert path.stat().st_mode & 0o777 == 0o600
    assert values("config", "show", "--changed") == {}
    text = path.read_text(encoding="utf-8")
    wanted = [line.removeprefix("# ") for line in text.splitlines() if "port = " in line or line.startswith("[")]
    write(path, "\n".join(line for line in wanted))
    assert values("config", "show", "gateway", "--changed") == {"gateway.port": ("7860", "lychee.toml, line 3")}
    again = run("config", "init")
    assert (again.exit_code, "exists already" in again.stderr) == (2, True)
    assert run("config", "init", "--force").exit_code == 0
