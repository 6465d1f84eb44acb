"""What mkdocs does beside building pages: describe commands and settings, and refuse pages that call other sites."""

from __future__ import annotations

import re
from typing import Any

import typer
import typer.main
from lychee_client.cli import add_commands, app
from lychee_server.gateway.settings import GatewaySettings, variable_of
from mkdocs.exceptions import PluginError
from typer.cli import get_docs_for_click

PAGE = "reference/cli.md"
MARKER = "<!-- every command -->"
SETTINGS_MARKER = "<!-- every setting of the gateway -->"
EXTERNAL = re.compile(r"""<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//""")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put the descriptions of every command and of the gateway's settings in the places of the markers."""
    if page.file.src_uri != PAGE:
        return markdown
    for marker in (MARKER, SETTINGS_MARKER):
        if marker not in markdown:
            raise PluginError(f"docs/{PAGE} lacks the line {marker}")
    listed = set(re.findall(r"^\| `lychee ([\w-]+)", markdown, re.MULTILINE))
    text = describe_commands()
    described = set(re.findall(r"^### `lychee ([\w-]+)`", text, re.MULTILINE))
    if listed != described:
        raise PluginError(
            f"the table of docs/{PAGE} and the installed commands differ in {', '.join(sorted(listed ^ described))}"
        )
    return markdown.replace(MARKER, text).replace(SETTINGS_MARKER, describe_settings())


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Refuse a page for which a browser would ask another site."""
    found = EXTERNAL.search(output)
    if found:
        raise PluginError(f"{page.file.src_uri} loads something from another site: {found.group()}")
    return output


def describe_commands() -> str:
    """Return a section of Markdown for every command that the installed distributions have."""
    if "export" not in {command.name for command in app.registered_commands}:
        add_commands(app)
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="lychee")
    text = get_docs_for_click(obj=command, ctx=context, name="lychee", indent=1)
    text = text[text.index("\n### ") :]
    text = re.sub(r"^\* `--help`: .*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^\*\*Options\*\*:\n\n(?!\*)", "", text, flags=re.MULTILINE)
    text = re.sub(r"^Example: (.*)$", r"```sh\n\1\n```", text, flags=re.MULTILINE)
    blocks = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(block if block.startswith("```") else _escape(block) for block in blocks)


def describe_settings() -> str:
    """Return a table in Markdown of every setting of the gateway: its variable, its default and what it means."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in GatewaySettings.model_fields.items():
        default = "" if field.default in (None, (), "") else f"`{str(field.default).removesuffix('.0')}`"
        rows.append(f"| `{variable_of(name)}` | {default} | {_escape(field.description or '')} |")
    return "\n".join(rows)


def _escape(text: str) -> str:
    """Escape what is meant literally outside of code, such as `<name>` and `*.example.org`."""
    parts = re.split(r"(`[^`\n]*`|^\* |^\*\*\w+\*\*:$)", text, flags=re.MULTILINE)
    parts[::2] = [part.replace("<", "&lt;").replace("*", r"\*") for part in parts[::2]]
    return "".join(parts)
