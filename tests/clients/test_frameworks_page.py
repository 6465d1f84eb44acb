"""The examples of docs/how-to/frameworks.md run and print what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "frameworks.md"
EXAMPLES = dict(
    re.findall(r"```python\n([^`]*lychee_client\.integrations[^`]*)```\n\n```\n([^`]*)```", PAGE.read_text("utf-8"))
)
NUMBER = re.compile(r"0\.\d+|1\.000")


def test_page_has_an_example_of_each_framework() -> None:
    modules = {name for code in EXAMPLES for name in re.findall(r"integrations\.(\w+)", code)}
    assert modules == {"haystack", "langchain", "llama_index"}


@pytest.mark.parametrize("code", EXAMPLES, ids=lambda code: re.findall(r"integrations\.(\w+)", code)[0])
def test_example_prints_what_the_page_shows(code: str, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code.replace("localhost:8001", url), str(PAGE), "exec"), {"__name__": "__main__"})
    printed, shown = capsys.readouterr().out, EXAMPLES[code]
    assert NUMBER.sub("#", printed) == NUMBER.sub("#", shown)
    assert [float(number) for number in NUMBER.findall(printed)] == pytest.approx(
        [float(number) for number in NUMBER.findall(shown)], abs=2e-3
    )
