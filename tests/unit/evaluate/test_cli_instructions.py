"""`lychee instructions`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.commands import evaluate
from lychee_client.instructions.templates import (
    InstructionTemplate,
    bundled_instructions,
    load_instructions,
    save_instructions,
)
from typer.testing import CliRunner, Result

Run = Callable[..., Result]


@pytest.fixture
def own_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where the user's own templates go; the file exists."""
    path = tmp_path / "own.json"
    monkeypatch.setenv("LYCHEE_INSTRUCTIONS", str(path))
    save_instructions([InstructionTemplate("legal", "[red]Law[/red].", {"zh": "判断判决书是否涉及该法条"})], path)
    return path


@pytest.fixture
def run(own_path: Path) -> Run:
    return lambda *arguments: CliRunner().invoke(evaluate, ["instructions", *(str(argument) for argument in arguments)])


def test_list_shows_bundled_and_own_templates(run: Run) -> None:
    words = run("list").stdout.split()
    for expected in (*bundled_instructions(), "legal", "own", "bundled", "判断判决书是否涉及该法条"):
        assert expected in words
    assert "判断文档是否回答了问题" not in run("list", "--language", "en").stdout


def test_list_json_is_one_object(run: Run) -> None:
    entries = json.loads(run("list", "--json", "--language", "zh").stdout)["instructions"]
    assert [entry["name"] for entry in entries] == [*bundled_instructions(), "legal"]
    assert entries[2]["texts"] == {"zh": "判断文档是否回答了问题"}
    assert (entries[-1]["source"], entries[0]["source"], entries[0]["texts"]) == ("own", "bundled", {})


def test_show_prints_one_template_literally(run: Run) -> None:
    result = run("show", "legal")
    assert (result.exit_code, result.stdout) == (0, "legal (own): [red]Law[/red].\nzh  判断判决书是否涉及该法条\n")
    assert "the model's own instruction" in run("show", "default").stdout
    assert json.loads(run("show", "search", "--json", "--language", "en").stdout)["texts"] == {
        "en": "Judge whether the document is relevant to the search query"
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "nothing"],
        ["show", "legal", "--language", "en"],
        ["show", "search", "--language", "fr"],
        ["lint", "text", "--name", "search"],
        ["lint", "--file", "missing.json"],
        ["import", "missing.json"],
        ["export", "nothing"],
        ["export", "--output", "/nonexistent/folder/file.json"],
        [],
    ],
)
def test_bad_usage_is_exit_code_2(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert (result.exit_code, bool(result.output)) == (2, True)
    assert "Traceback" not in result.output


def test_lint_warns_with_exit_code_1(run: Run) -> None:
    result = run("lint", "Retrieve only perfect matches")
    assert result.exit_code == 1
    assert result.stdout.startswith("instruction: exact-only, 'only perfect': ")
    data = json.loads(run("lint", "Retrieve only perfect matches", "--json").stdout)
    assert [entry["code"] for entry in data["warnings"]] == ["exact-only"]


def test_lint_is_content_with_the_bundled_templates(run: Run) -> None:
    assert (run("lint").exit_code, run("lint").stdout) == (0, "no warnings\n")
    assert json.loads(run("lint", "--name", "search", "--json").stdout) == {"warnings": []}


def test_lint_and_import_warn_about_a_files_templates(run: Run, tmp_path: Path, own_path: Path) -> None:
    file = tmp_path / "strict.json"
    texts = {"en": "Find exact matches", "zh": "判断文档是否相关"}
    save_instructions([InstructionTemplate("strict", "Too strict.", texts)], file)
    result = run("lint", "--file", file)
    assert (result.exit_code, result.stdout.startswith("strict (en): exact-only")) == (1, True)
    assert run("lint", "--file", file, "--language", "zh").exit_code == 0
    imported = run("import", file, "--json")
    assert (imported.exit_code, json.loads(imported.stdout)) == (0, {"imported": ["strict"], "path": str(own_path)})
    assert imported.stderr.startswith("lychee: warning: strict (en): exact-only")
    assert run("lint").exit_code == 1
    assert "nothing to import" in run("import", file).stdout


def test_import_refuses_a_taken_name_without_force(run: Run, tmp_path: Path, own_path: Path) -> None:
    file = tmp_path / "legal.json"
    save_instructions([InstructionTemplate("legal", "Changed.", {"zh": "判断判决书是否涉及该法条"})], file)
    result = run("import", file)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "names are taken: legal" in result.stderr
    assert load_instructions(own_path)["legal"].purpose == "[red]Law[/red]."
    assert "imported legal" in run("import", file, "--force").stdout
    assert load_instructions(own_path)["legal"].purpose == "Changed."


def test_export_and_import_round_trip(run: Run, tmp_path: Path, own_path: Path) -> None:
    file = tmp_path / "导出.json"
    assert json.loads(run("export", "--output", file, "--json").stdout)["exported"] == [
        *bundled_instructions(),
        "legal",
    ]
    assert run("export").stdout == file.read_text(encoding="utf-8")
    assert list(json.loads(run("export", "legal", "search").stdout)["templates"]) == ["legal", "search"]
    own_path.unlink()
    assert "imported legal" in run("import", file).stdout
    refused = run("export", "legal", "--output", file)
    assert (refused.exit_code, "--force" in refused.stderr) == (2, True)
    assert run("export", "legal", "--output", file, "--force").exit_code == 0
    assert list(load_instructions(file)) == ["legal"]
