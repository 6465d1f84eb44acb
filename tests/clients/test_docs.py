"""The snippets of docs/clients.md run as they stand there, and its versions are those that were tried."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rankers.ranker import KEY

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
SETTING, *SNIPPETS = re.findall(r"^```py\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
BEST = "店里的小猫喜欢在窗台上晒太阳。"


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: re.findall(r"^(?:from|import) ([\w.]+)", snippet)[0])
def test_snippet_prints_the_best_document_and_its_score(
    snippet: str, keyed_gateway_url: str, gateway_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    base = keyed_gateway_url if "KEY" in snippet else gateway_url
    code = (SETTING + snippet).replace("http://localhost:7860", base).replace("KEY", KEY)
    exec(compile(code, "docs/clients.md", "exec"), {"__name__": "__main__"})
    shown = capsys.readouterr().out.strip().splitlines()[-1]
    assert re.fullmatch(rf"{BEST} -?\d+\.\d+", shown)


def test_versions_are_those_that_were_tried() -> None:
    tried = {}
    for name in ("requirements.txt", "other_versions.txt"):
        for line in (ROOT / "tests" / "clients" / name).read_text(encoding="utf-8").splitlines():
            if "==" in line:
                package, version = line.split("==")
                tried.setdefault(version, package)
    table = PAGE[PAGE.index("| client | tried |") :].split("\n\n")[0]
    shown = [version for row in table.splitlines()[2:] for version in row.split("|")[2].strip().split(", ")]
    assert len(shown) > 20
    assert set(shown) <= set(tried)
