"""The documents say what is there."""

import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import lychee_client
import pytest
import typer.main
from google.protobuf import text_format
from lychee_client.cli import add_commands, app
from tritonclient.grpc.model_config_pb2 import ModelConfig

ROOT = Path(__file__).parent.parent.parent
READMES = ["README.md", "README.zh-CN.md"]
PAGES = [*READMES, *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))]
OTHER_PROGRAMS = {  # pages that show options of Locust, Docker, helm, kubectl, trtexec and of scripts
    "docs/benchmarks/comparison.md",
    "docs/benchmarks/measurements.md",
    "docs/how-to/deploy.md",
    "docs/how-to/kubernetes.md",
    "docs/how-to/load-test.md",
    "docs/how-to/logs.md",
    "docs/how-to/tensorrt.md",
}
MOST_README_LINES = 130
UNDOCUMENTED = {"UNSET", "Unset", "__version__"}  # the first two are only for annotations


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def prose(page: str) -> str:
    """Return a page without its fenced blocks and code."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```$", "", read(page), flags=re.MULTILINE | re.DOTALL))


def anchors(page: str) -> set[str]:
    """Return the anchors that a page's headings get, on GitHub and on the site."""
    text = re.sub(r"^```.*?^```$", "", read(page), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


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


def test_every_command_of_the_reference_exists_and_every_command_is_in_it() -> None:
    text = read("docs/reference/cli.md")
    assert set(re.findall(r"^\| `lychee ([\w-]+)", text, re.MULTILINE)) == set(commands())


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_a_page_shows_exists(page: str) -> None:
    text = re.sub(r"^[^\n]*lychee share[^\n]*$", "", read(page), flags=re.MULTILINE)  # there is none, it says
    shown = set(re.findall(r"(?:^|`|bin/)lychee ([a-z][a-z-]*)", text, re.MULTILINE))
    assert shown <= set(commands())


@pytest.mark.parametrize("page", sorted(set(PAGES) - OTHER_PROGRAMS))
def test_every_option_of_the_documents_exists(page: str) -> None:
    text = re.sub(r"^(docker|curl|pip) .*$|`docker [^`]*`", "", read(page), flags=re.MULTILINE)
    shown = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", text))
    shown -= {"--help", "--model-config-name", "--trace-config", "--enable-feature"}  # partly of others
    assert shown <= options(typer.main.get_command(app)).union(*commands().values())


def test_model_table_equals_the_repository(root: Path) -> None:
    text = read("docs/explanation/architecture.md")
    table = text[text.index("| model in `model_repository/` |") :].split("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", table, re.MULTILINE)
    documented = {name: (set(re.findall(r"`(\w+)`", i)), set(re.findall(r"`(\w+)`", o))) for name, i, o in rows}
    expected = {}
    for path in (root / "model_repository").glob("*/config.pbtxt"):
        config = text_format.Parse(path.read_text(encoding="utf-8"), ModelConfig())
        expected[config.name] = ({tensor.name for tensor in config.input}, {tensor.name for tensor in config.output})
    assert documented == expected


def test_sdk_reference_has_every_public_name() -> None:
    named = re.findall(r"^::: lychee_client\.(\w+)$", read("docs/reference/sdk.md"), re.MULTILINE)
    assert len(named) == len(set(named))
    assert set(named) == set(lychee_client.__all__) - UNDOCUMENTED


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md", "CHANGELOG.md"])
def test_make_targets_of_the_documents_exist(root: Path, page: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z]+)(?=`|$| +#)", read(page), re.MULTILINE)) <= targets


def test_folders_of_contributing_exist(root: Path) -> None:
    folders = re.findall(r"^\| `([\w/.]+)` \|", read("CONTRIBUTING.md"), re.MULTILINE)
    assert len(folders) > 8
    assert all((root / folder).exists() for folder in folders)


@pytest.mark.parametrize("page", PAGES)
def test_links_and_images_resolve(page: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.resolve().relative_to(ROOT).as_posix()), link


def test_every_page_is_in_the_navigation_once(root: Path) -> None:
    listed = re.findall(r"([\w/-]+\.md)$", (root / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(f"docs/{page}" for page in listed) == [page for page in PAGES if page not in READMES]


@pytest.mark.parametrize("page", READMES)
def test_readmes_are_short(page: str) -> None:
    assert len(read(page).splitlines()) <= MOST_README_LINES


def test_both_readmes_have_the_same_examples_headings_and_links() -> None:
    examples, headings, links = r"```python\n[^`]*```\n\n```\n[^`]*```", r"^##? ", r"\]\((docs/[^)]*)\)"
    for pattern in (examples, headings, links):
        first, second = (re.findall(pattern, read(page), re.MULTILINE) for page in READMES)
        assert first == second


@pytest.mark.parametrize("page", PAGES)
def test_no_placeholder_is_left(page: str) -> None:
    assert not re.findall(r"@[A-Z_]+@", read(page))
