"""Every command ends in one way: one prefix, one set of exit codes."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import typer
import typer.main
from lychee_client import ConfigurationError, InvalidInputError, _command, cli
from lychee_client.cli import COMMANDS_GROUP, add_commands, app, outcome
from lychee_client.cli.group import COMES_WITH, CommandGroup
from typer.testing import CliRunner, Result

LYCHEE = str(Path(sys.executable).parent / "lychee")
SOURCES = ("client/lychee_client", "evaluate/lychee_evaluate", "export/lychee_export", "server/lychee_server")
DISTRIBUTIONS = {
    "lychee_bulk": "lychee-rerank[bulk]",
    "lychee_evaluate": "lychee-rerank[evaluate]",
    "lychee_export": "lychee-rerank[export]",
    "lychee_loadtest": "lychee-rerank[loadtest]",
    "lychee_server": "lychee-rerank[server]",
}

Run = Callable[[Exception | type[BaseException]], Result]


class ForeignError(Exception):
    """An error of another distribution."""

    exit_code = 2


@pytest.fixture
def run() -> Run:
    """Run a command that raises an error."""

    def run(error: BaseException | type[BaseException]) -> Result:
        def fail() -> None:
            raise error

        app = typer.Typer(cls=CommandGroup)
        app.command("fail")(fail)
        app.command("other")(lambda: None)
        return CliRunner().invoke(app, ["fail"])

    return run


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ConfigurationError("url is odd"), 2, "url is odd"),
        (InvalidInputError("no text"), 1, "no text"),
        (ForeignError("no folder"), 2, "no folder"),
        (OSError(28, "No space left on device", "/state"), 1, "/state: No space left on device"),
        (typer.BadParameter("give one"), 2, "give one; see `root fail --help`"),
        (KeyError("a\nb"), 1, r"unexpected KeyError: 'a\nb'; LYCHEE_DEBUG=1 shows where. Please report it"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(run: Run, error: Exception, code: int, message: str) -> None:
    result = run(error)
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", f"lychee: {message}\n")


def test_debugging_shows_the_traceback_before_the_message(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LYCHEE_DEBUG", "1")
    lines = run(ValueError("odd")).stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1].startswith("lychee: unexpected ValueError: odd")


def test_ctrl_c_is_exit_code_130_without_a_traceback(run: Run) -> None:
    result = run(KeyboardInterrupt)
    assert (result.exit_code, result.output) == (130, "")


def test_ctrl_c_while_commands_are_imported_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: typer.Typer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "add_commands", interrupt)
    with pytest.raises(SystemExit) as ended:
        _command.main()
    assert ended.value.code == _command.EXIT_INTERRUPTED == outcome.EXIT_INTERRUPTED


def test_a_message_says_if_a_variable_has_its_value_from_the_file(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(outcome.ORIGINS, "LYCHEE_URL", "lychee.toml, line 2")
    message = "LYCHEE_URL is odd (LYCHEE_URL is what lychee.toml, line 2 says)"
    assert run(ConfigurationError("LYCHEE_URL is odd")).stderr == f"lychee: {message}\n"


def test_a_closed_pipe_is_quiet() -> None:
    with subprocess.Popen([LYCHEE, "config", "show"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 1)


@pytest.mark.parametrize("arguments", [["unknown"], ["rerank", "--unknown"], ["rerank", "--top-n", "0"], ["rerank"]])
def test_wrong_usage_is_one_line_that_names_the_help(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments, prog_name="lychee")
    command = "lychee rerank" if arguments[0] == "rerank" else "lychee"
    assert result.exit_code == 2
    assert result.stderr.startswith("lychee: ")
    assert result.stderr.endswith(f"; see `{command} --help`\n")
    assert result.stderr.count("\n") == 1


def test_no_command_is_wrong_usage_with_the_help() -> None:
    result = CliRunner().invoke(app, [], prog_name="lychee")
    assert (result.exit_code, result.stderr) == (2, "lychee: a command is missing; see `lychee --help`\n")
    assert "rerank" in result.stdout


def test_choices_may_be_written_in_any_case(tmp_path: Path) -> None:
    arguments = ["--policy", "STRICT", "--language", "ZH", "--priority", "Bulk"]
    result = CliRunner().invoke(app, ["rerank", "--query", "x", "--url", "ftp://x", *arguments, str(tmp_path)])
    assert "url is 'ftp://x'" in result.stderr


@pytest.mark.parametrize("command", sorted(COMES_WITH))
def test_a_command_that_is_not_installed_says_what_to_install(command: str) -> None:
    alone = typer.Typer(cls=CommandGroup)
    alone.command("rerank")(lambda: None)
    alone.command("score")(lambda: None)
    result = CliRunner().invoke(alone, [command, "--anything"], prog_name="lychee")
    assert result.exit_code == 2
    assert f'`lychee {command}` is not installed; run: pip install "{COMES_WITH[command]}"' in result.stderr


def test_the_table_of_what_to_install_is_what_the_distributions_have() -> None:
    found = {}
    for entry_point in entry_points(group=COMMANDS_GROUP):
        distribution = typer.Typer(callback=lambda: None)
        entry_point.load()(distribution)
        requirement = DISTRIBUTIONS[entry_point.module.partition(".")[0]]
        found |= dict.fromkeys(typer.main.get_command(distribution).commands, requirement)  # type: ignore[attr-defined]
    found["quickstart"] = "lychee-rerank[all]"  # it exports, too
    assert found == COMES_WITH


def test_no_command_has_a_prefix_or_an_exit_code_of_its_own(root: Path) -> None:
    own = [
        f"{path.relative_to(root)}:{node.lineno}"
        for folder in (*SOURCES, "bulk/lychee_bulk", "loadtest/lychee_loadtest")
        for path in sorted((root / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and is_own(node)
    ]
    assert own == []


def is_own(call: ast.Call) -> bool:
    """Tell whether a call ends a command with a number, or says something on standard error with a prefix."""
    name = ast.unparse(call.func)
    if name == "typer.Exit":
        return any(isinstance(argument, ast.Constant) for argument in call.args)
    if name != "typer.echo" or not call.args:
        return False
    (text,) = [next(ast.walk(part)) for part in call.args[:1]]
    first = text.values[0] if isinstance(text, ast.JoinedStr) and text.values else text
    words = first.value if isinstance(first, ast.Constant) else ""
    return str(words).lower().startswith(("error", "warning", "lychee:"))


@pytest.fixture
def _all_commands() -> None:
    if "export" not in {command.name for command in app.registered_commands}:
        add_commands(app)


@pytest.mark.usefixtures("_all_commands")
def test_bash_completes_commands_options_and_choices(tmp_path: Path) -> None:
    command = ["bash", "-c", f"{LYCHEE} --show-completion; exit $?"]  # a bash that stays: its name is looked for
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    script = tmp_path / "completion.bash"
    script.write_text(
        shown.stdout
        + """
complete -p lychee | grep -q _lychee_completion || exit 1
for words in 'lychee lo' 'lychee load --log-' 'lychee rerank --policy str'; do
    COMP_WORDS=($words); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
    _lychee_completion "$LYCHEE"
    echo "${COMPREPLY[@]}"
done
"""
    )
    environment = {"LYCHEE": LYCHEE, "PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.splitlines() == ["load", "--log-level", "strict"], done.stderr


def test_completion_is_installed_for_the_shell_that_asks(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)}
    command = ["bash", "-c", f"{LYCHEE} --install-completion; exit $?"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert "bash_completions" in (tmp_path / ".bashrc").read_text(encoding="utf-8")
    assert "_lychee_completion" in (tmp_path / ".bash_completions" / "lychee.sh").read_text(encoding="utf-8")
