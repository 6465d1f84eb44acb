"""`lychee instructions`: list, show, check, import and export instruction templates."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer
from lychee_client import ConfigurationError
from lychee_client.cli.outcome import EXIT_FAILED, reported_errors, warn
from lychee_client.files import check_writable
from lychee_client.instructions.lint import LintWarning, lint_instruction
from lychee_client.instructions.templates import (
    InstructionTemplate,
    Language,
    all_instructions,
    dump_instructions,
    get_template,
    import_instructions,
    load_instructions,
    save_instructions,
    user_instructions,
    user_instructions_path,
)
from rich.console import Console
from rich.table import Table
from rich.text import Text

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
LanguageOption: TypeAlias = Annotated[
    Language | None, typer.Option("--language", case_sensitive=False, help="Only texts in this language.")
]

_app = typer.Typer(no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the command with its subcommands."""
    app.add_typer(_app, name="instructions", help="Manage the named instructions that tell a model what to judge.")


@_app.command(name="list")
def _list(language: LanguageOption = None, as_json: AsJson = False) -> None:
    """List all templates, the bundled ones and your own.

    Example: lychee instructions list --language zh
    """
    with reported_errors():
        templates, own = all_instructions(), user_instructions()
    if as_json:
        _print_json({"instructions": [_to_json(template, own, language) for template in templates.values()]})
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "from", "language"):
        table.add_column(heading, no_wrap=True)
    table.add_column("text", overflow="fold")
    for template in templates.values():
        for key, text in _texts(template, language).items():
            table.add_row(template.name, _source(template, own), key, Text(text))
    Console().print(table)


@_app.command(name="show")
def _show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name that `list` shows.")],
    language: LanguageOption = None,
    as_json: AsJson = False,
) -> None:
    """Show one template.

    Example: lychee instructions show customer-service
    """
    with reported_errors():
        template, own = _find(name, language), user_instructions()
    if as_json:
        _print_json(_to_json(template, own, language))
        return
    typer.echo(f"{template.name} ({_source(template, own)}): {template.purpose}")
    for key, text in _texts(template, language).items():
        typer.echo(f"{key}  {text}")


@_app.command(name="lint")
def _lint(
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help="An instruction to check.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Check this template.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="PATH", help="Check a file of templates before importing it.")
    ] = None,
    language: LanguageOption = None,
    as_json: AsJson = False,
) -> None:
    """Warn about instructions that change what a score means; without TEXT, --name or --file, check all templates.

    Exit code 1 if there is a warning.

    Example: lychee instructions lint "Retrieve only perfect matches"
    """
    with reported_errors():
        if sum(option is not None for option in (text, name, file)) > 1:
            raise ConfigurationError("TEXT, --name and --file were given together; expected at most one of them")
        if text is not None:
            findings = [("instruction", warning) for warning in lint_instruction(text)]
        elif name is not None:
            findings = _lint_templates([_find(name, language)], language)
        else:
            templates = all_instructions() if file is None else load_instructions(file)
            findings = _lint_templates(templates.values(), language)
    if as_json:
        _print_json(
            {
                "warnings": [
                    {"instruction": label, "code": found.code, "excerpt": found.excerpt, "message": found.message}
                    for label, found in findings
                ]
            }
        )
    else:
        for line in _lines(findings):
            typer.echo(line)
        if not findings:
            typer.echo("no warnings")
    if findings:
        raise typer.Exit(EXIT_FAILED)


@_app.command(name="import")
def _import(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A JSON file as `export` writes it.")],
    force: Annotated[bool, typer.Option("--force", help="Replace templates of the same name.")] = False,
    as_json: AsJson = False,
) -> None:
    """Add a file's templates to your own, all or none.

    Your own are kept in the file that LYCHEE_INSTRUCTIONS names, or in your configuration folder.

    Example: lychee instructions import shop.json
    """
    with reported_errors():
        imported = import_instructions(file, force=force)
    for line in _lines(_lint_templates(imported.values(), None)):
        warn(line)
    path = user_instructions_path()
    if as_json:
        _print_json({"imported": list(imported), "path": str(path)})
    else:
        typer.echo(
            f"imported {', '.join(imported)} into {path}" if imported else "nothing to import: all of it is here"
        )


@_app.command(name="export")
def _export(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAMES...", help="[default: all templates]")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="PATH", help="File to write [default: standard output]")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write templates as JSON for `import` or an editor.

    Example: lychee instructions export search product-match --output shop.json
    """
    with reported_errors():
        templates = [get_template(name) for name in names] if names else list(all_instructions().values())
        if output is None:
            typer.echo(dump_instructions(templates), nl=False)
            return
        check_writable(output, replace=force)
        save_instructions(templates, output)
    exported = [template.name for template in templates]
    if as_json:
        _print_json({"exported": exported, "path": str(output)})
    else:
        typer.echo(f"exported {', '.join(exported)} to {output}")


def _find(name: str, language: Language | None) -> InstructionTemplate:
    """Return the named template; ConfigurationError if there is none, or it lacks the language."""
    template = get_template(name)
    if language is not None:
        template.text(language)
    return template


def _lint_templates(
    templates: Iterable[InstructionTemplate], language: Language | None
) -> list[tuple[str, LintWarning]]:
    return [
        (f"{template.name} ({key})", warning)
        for template in templates
        for key, text in template.texts.items()
        if language in (None, key)
        for warning in lint_instruction(text)
    ]


def _lines(findings: Iterable[tuple[str, LintWarning]]) -> list[str]:
    return [f"{label}: {found.code}, {found.excerpt!r}: {found.message}" for label, found in findings]


def _texts(template: InstructionTemplate, language: Language | None) -> dict[str, str]:
    """Return what to show by language; the default template has one line that says where its text is."""
    if not template.texts:
        return {"-": "(the model's own instruction, from the server's manifest)"}
    return {key: text for key, text in template.texts.items() if language in (None, key)}


def _source(template: InstructionTemplate, own: Mapping[str, InstructionTemplate]) -> str:
    return "own" if template.name in own else "bundled"


def _to_json(
    template: InstructionTemplate, own: Mapping[str, InstructionTemplate], language: Language | None
) -> dict[str, Any]:
    return {
        "name": template.name,
        "source": _source(template, own),
        "purpose": template.purpose,
        "texts": {key: text for key, text in template.texts.items() if language in (None, key)},
    }


def _print_json(data: object) -> None:
    typer.echo(json.dumps(data, ensure_ascii=False, indent=2))
