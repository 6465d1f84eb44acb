"""The documents say what is there."""

import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import typer.main
from google.protobuf import text_format
from lychee_client.cli import add_commands, app
from tritonclient.grpc.model_config_pb2 import ModelConfig


def commands() -> dict[str, set[str]]:
    """Return the options of every command of ``lychee``, those of its subcommands included."""
    assert entry_points(group="lychee.commands")
    if "export" not in {command.name for command in app.registered_commands}:
        add_commands(app)
    return {name: options(command) for name, command in typer.main.get_command(app).commands.items()}  # type: ignore[attr-defined]


def options(command: Any) -> set[str]:
    """Return the options of a command and of the commands below it."""
    own = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return own.union(*(options(below) for below in getattr(command, "commands", {}).values()))


def test_every_command_of_the_readme_exists_and_every_command_is_in_it(root: Path) -> None:
    text = (root / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `lychee ([\w-]+)", text, re.MULTILINE)) == set(commands())


@pytest.mark.parametrize("page", ["README.md", "docs/rest.md"])
def test_every_option_of_the_documents_exists(root: Path, page: str) -> None:
    text = (root / page).read_text(encoding="utf-8")
    text = re.sub(r"^(docker|curl) .*$", "", text, flags=re.MULTILINE)
    shown = set(re.findall(r"`?(--[a-z][a-z-]+)", text)) - {"--model-config-name"}  # Triton's own
    assert shown
    assert shown <= set().union(*commands().values())


def test_model_table_equals_the_repository(root: Path) -> None:
    text = (root / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    documented = {name: (set(re.findall(r"`(\w+)`", i)), set(re.findall(r"`(\w+)`", o))) for name, i, o in rows}
    expected = {}
    for path in (root / "model_repository").glob("*/config.pbtxt"):
        config = text_format.Parse(path.read_text(encoding="utf-8"), ModelConfig())
        expected[config.name] = ({tensor.name for tensor in config.input}, {tensor.name for tensor in config.output})
    assert documented == expected


def test_make_targets_of_the_documents_exist(root: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        text = (root / name).read_text(encoding="utf-8")
        assert set(re.findall(r"(?:`|^)make ([a-z]+)", text, re.MULTILINE)) <= targets


def test_folders_of_contributing_exist(root: Path) -> None:
    text = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    folders = re.findall(r"^\| `([\w/.]+)` \|", text, re.MULTILINE)
    assert len(folders) > 8
    assert all((root / folder).exists() for folder in folders)


def test_no_placeholder_is_left(root: Path) -> None:
    assert not re.findall(r"@[A-Z_]+@", (root / "README.md").read_text(encoding="utf-8"))
