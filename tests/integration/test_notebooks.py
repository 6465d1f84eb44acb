"""The notebooks run in a real kernel, and print what they show."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from lychee_server import TritonServer
from nbclient import NotebookClient

pytestmark = [pytest.mark.triton, pytest.mark.slow]

NAMES = ["compare_models", "export_clip", "find_threshold", "rerank_for_rag"]
NUMBER = re.compile(r"\d+(\.\d+)?")
TOLERANCE = 5e-3
"""Of a number with three places, on the plain CPU provider in float32."""


def printed(notebook: nbformat.NotebookNode) -> list[str]:
    """Return the text that each code cell shows."""
    texts = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            shown = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
            texts.append("".join(shown))
    return texts


def test_every_notebook_is_run(root: Path) -> None:
    assert sorted(path.stem for path in (root / "examples" / "notebooks").glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_prints_what_it_shows(
    name: str, root: Path, server: TritonServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = root / "examples" / "notebooks" / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    shown = printed(notebook)
    assert any(shown), "run `jupyter execute --inplace` on it: readers want to see what comes out"
    monkeypatch.setenv("LYCHEE_URL", server.grpc_url)
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(path.parent)}}).execute()
    for now, before in zip(printed(notebook), shown, strict=True):
        assert NUMBER.sub("#", now) == NUMBER.sub("#", before)
        values = [[float(match[0]) for match in NUMBER.finditer(text)] for text in (now, before)]
        assert values[0] == pytest.approx(values[1], abs=TOLERANCE)
