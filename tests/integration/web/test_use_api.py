"""The code under "Use via API" makes the very call that is on the screen: each snippet runs against the gateway."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from lychee_client import Image, ImageText, LycheeClient
from playwright.sync_api import Page, expect

from .conftest import choose_tab

pytestmark = pytest.mark.triton

QUERY = 'it\'s a "cat" for $5 \\ `ls`'
TEXTS = ["$(echo no) `echo no` \\ \"quoted\" 'single' ${HOME} \\n", "小猫 🐈", "JSON"]
# In which environments the code may run; the second one is that of `make clients`.
ROOT = Path(__file__).parents[3]
PYTHONS = (Path(sys.executable), ROOT / ".clients" / "bin" / "python")


@pytest.fixture
def snippets(browser_page: Page, photos: Path, tmp_path: Path) -> dict[str, str]:
    """Return the code for a ranking with texts, an image and odd names; the image's file is in `tmp_path`."""
    photo = tmp_path / "it's a $cat.jpg"
    shutil.copy(photos / "cat.jpg", photo)
    choose_tab(browser_page, "rank")
    browser_page.locator("#rank-query-text").fill(QUERY)
    browser_page.locator("#rank-texts").fill("\n".join(TEXTS))
    browser_page.locator("#rank-images").set_input_files(photo)
    return read_snippets(browser_page, "rank")


def read_snippets(page: Page, tab: str) -> dict[str, str]:
    panel = page.locator(f"#tab-{tab} .use-api")
    panel.locator("summary").click()
    found = {}
    for kind in ("curl", "python", "cohere", "langchain"):
        panel.locator(f"[data-kind={kind}]").click()
        expect(panel.locator(f"[data-kind={kind}]")).to_have_attribute("aria-pressed", "true")
        found[kind] = panel.locator(".code").text_content() or ""
    return found


@pytest.fixture
def expected(client: LycheeClient, tmp_path: Path) -> list[float]:
    """Return the scores of the ranking's documents, in their order."""
    photo = next(tmp_path.glob("*.jpg"))
    return [client.score(QUERY, document) for document in (*TEXTS, Image.from_path(photo))]


def run_shell(text: str, folder: Path) -> dict[str, object]:
    done = subprocess.run(["bash", "-c", text], cwd=folder, capture_output=True, text=True, check=True, timeout=120)
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


def run_python(text: str, folder: Path, module: str) -> list[list[str]]:
    """Run code where a module is installed; return the words of the lines that it prints."""
    for python in PYTHONS:
        if python.exists() and not subprocess.run([python, "-c", f"import {module}"], capture_output=True).returncode:
            environment = {**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(ROOT / "client")}
            done = subprocess.run(
                [python, "-c", text], cwd=folder, capture_output=True, text=True, timeout=120, env=environment
            )
            assert done.returncode == 0, done.stderr
            return [line.split() for line in done.stdout.splitlines()]
    pytest.skip(f"{module} is in none of {', '.join(map(str, PYTHONS))}; `make clients` installs it")


def test_curl_ranks_what_is_on_the_screen(snippets: dict[str, str], expected: list[float], tmp_path: Path) -> None:
    answer = run_shell(snippets["curl"], tmp_path)
    scores = {entry["index"]: entry["relevance_score"] for entry in answer["results"]}  # type: ignore[attr-defined]
    assert [scores[index] for index in range(4)] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("kind", "module"), [("python", "lychee_client"), ("cohere", "cohere")])
def test_python_ranks_what_is_on_the_screen(
    snippets: dict[str, str], expected: list[float], tmp_path: Path, kind: str, module: str
) -> None:
    scores = {int(line[0]): float(line[1]) for line in run_python(snippets[kind], tmp_path, module)}
    assert [scores[index] for index in range(4)] == pytest.approx(expected, abs=1e-4)


def test_langchain_ranks_what_is_on_the_screen(snippets: dict[str, str], expected: list[float], tmp_path: Path) -> None:
    scores = [float(line[0]) for line in run_python(snippets["langchain"], tmp_path, "langchain_core")]
    assert scores == pytest.approx(sorted(expected, reverse=True), abs=1e-4)


def test_a_pair_with_a_photo_on_both_sides(
    browser_page: Page, client: LycheeClient, photos: Path, tmp_path: Path
) -> None:
    shutil.copy(photos / "cat.jpg", tmp_path)
    browser_page.locator("#try-query-image").set_input_files(photos / "cat.jpg")
    browser_page.locator("#try-document-image").set_input_files(photos / "cat.jpg")
    browser_page.locator("#try-document-text").fill("小猫")
    browser_page.locator("#try-submit").click()
    expect(browser_page.locator("#try-result .headline")).to_be_visible()
    snippets = read_snippets(browser_page, "try")
    photo = Image.from_path(photos / "cat.jpg")
    score = client.score(photo, ImageText(photo, "小猫"))
    assert run_shell(snippets["curl"], tmp_path)["relevance_score"] == pytest.approx(score, abs=1e-6)
    assert float(run_python(snippets["python"], tmp_path, "lychee_client")[0][1]) == pytest.approx(score, abs=1e-4)
    assert "texts alone" in snippets["langchain"]


def test_options_of_the_call_are_in_the_code(snippets: dict[str, str], browser_page: Page, tmp_path: Path) -> None:
    browser_page.locator("#tab-rank summary", has_text="Options").click()
    for label in ("Long texts: best chunk", "Show matching sentences"):
        browser_page.get_by_label(label).check()
    panel = browser_page.locator("#tab-rank .use-api")
    panel.locator("[data-kind=python]").click()
    text = panel.locator(".code").text_content() or ""
    assert "chunking=Chunking()" in text
    assert "relevant_spans=RelevantSpans()" in text
    assert len(run_python(text, tmp_path, "lychee_client")) == 4
    assert text != snippets["python"]
