"""The forms that GitHub shows to whoever opens an issue: what is wrong with one, GitHub tells nobody."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / ".github" / "ISSUE_TEMPLATE"
FORMS = sorted(path for path in FOLDER.glob("*.yml") if path.name != "config.yml")
# https://docs.github.com/en/communities/using-templates-to-encourage-useful-issues-and-pull-requests/syntax-for-issue-forms
ATTRIBUTES = {
    "markdown": {"value"},
    "textarea": {"label", "description", "placeholder", "value", "render"},
    "input": {"label", "description", "placeholder", "value"},
    "dropdown": {"label", "description", "options", "multiple", "default"},
    "checkboxes": {"label", "description", "options"},
}


def test_there_are_forms() -> None:
    assert len(FORMS) >= 3


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_the_form_is_one_that_github_shows(path: Path) -> None:
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(form) <= {"name", "description", "title", "labels", "assignees", "projects", "type", "body"}
    assert form["name"]
    assert form["description"]
    assert form["body"]
    ids = [entry["id"] for entry in form["body"] if entry["type"] != "markdown"]
    assert len(set(ids)) == len(ids)
    for entry in form["body"]:
        assert set(entry) <= {"type", "id", "attributes", "validations"}
        assert set(entry["attributes"]) <= ATTRIBUTES[entry["type"]]
        assert entry["attributes"].get("label") or entry["type"] == "markdown"
        assert all(isinstance(option, str) for option in entry["attributes"].get("options", []))
    assert any(entry.get("validations", {}).get("required") for entry in form["body"])
