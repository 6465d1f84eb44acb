"""The page's files, without a browser: what is served, what they may load, and that both languages are whole."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest
from fastapi import FastAPI
from lychee_server.web.page import CONTENT_SECURITY_POLICY, install_page
from starlette.testclient import TestClient

SITE = Path(str(resources.files("lychee_server.web").joinpath("site")))
FILES = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*") if path.is_file())
SCRIPTS = [name for name in FILES if name.endswith(".js")]
MOST_LINES = 350
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}
IMPORT = re.compile(r"""(?:import|from)\s*\(?\s*["'](\.[^"']+)["']""")
PLACEHOLDER = re.compile(r"\{(\w+)\}")


@pytest.fixture(scope="module")
def page() -> Iterator[TestClient]:
    app = FastAPI()
    install_page(app)
    with TestClient(app) as client:
        yield client


def read(name: str) -> str:
    return (SITE / name).read_text(encoding="utf-8")


def read_texts(name: str) -> dict[str, list[str]]:
    """Return the default export of a texts.js: string literals that are JSON but for the names before them."""
    body = read(name).split("export default", 1)[1].strip().removesuffix(";")
    body = re.sub(r"^(\s*)([A-Za-z_]\w*):", r'\1"\2":', body, flags=re.MULTILINE)
    texts = json.loads(re.sub(r",(\s*[}\]])", r"\1", body))
    assert isinstance(texts, dict)
    return texts


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_served_with_its_type_and_the_policy(page: TestClient, name: str) -> None:
    answer = page.get(f"/page/{name}")
    assert answer.status_code == 200
    assert answer.headers["content-type"].split(";")[0] == TYPES[Path(name).suffix]
    assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", FILES)
def test_no_file_names_another_site_or_writes_html(name: str) -> None:
    text = read(name)
    assert set(re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}[^\s\"'`)]*", text)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|(?<!\.)document\.write|\beval\(|new Function\(", text)
    assert len(text.splitlines()) <= MOST_LINES


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_import_is_there(name: str) -> None:
    for path in IMPORT.findall(read(name)):
        if "${" not in path:
            assert (SITE / name).parent.joinpath(path).resolve().is_file(), path


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name.endswith("texts.js")])
def test_every_text_is_there_in_both_languages_with_the_same_values(name: str) -> None:
    texts = read_texts(name)
    assert texts
    for key, entry in texts.items():
        assert len(entry) == 2, key
        assert all(entry), key
        english, chinese = ({*PLACEHOLDER.findall(text)} for text in entry)
        assert english == chinese, key


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name.endswith("/tab.js") or "/texts" not in name])
def test_every_text_that_is_used_exists(name: str) -> None:
    text = read(name)
    for alias, path in re.findall(r"""import (\w+) from ["'](\.[^"']*texts\.js)["']""", text):
        known = read_texts((SITE / name).parent.joinpath(path).resolve().relative_to(SITE).as_posix())
        assert {*re.findall(rf"\b{alias}\.(?!js\b)(\w+)", text)} <= {*known}


@pytest.mark.parametrize("folder", ["try", "rank", "compare", "batch", "calibrate", "status"])
def test_every_tab_has_its_module(folder: str) -> None:
    assert "export default function makeTab(panel" in read(f"{folder}/tab.js")


@pytest.mark.parametrize(
    ("root_path", "base"), [("", "/"), ("/rerank", "/rerank/"), ('/"><b>', "/&quot;&gt;&lt;b&gt;/")]
)
def test_the_index_is_based_where_a_proxy_serves_it(root_path: str, base: str) -> None:
    app = FastAPI()
    install_page(app, root_path)
    with TestClient(app) as client:
        answer = client.get("/")
    assert f'<base href="{base}">' in answer.text
    assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert not re.search(r"""(?:src|href)=["']/(?!"|')""", answer.text.replace(f'<base href="{base}">', ""))


def test_the_catalogue_and_its_photos_are_served(page: TestClient) -> None:
    catalogue = page.get("/page/catalogue.json").json()
    photos = {each["photo"] for each in catalogue["documents"] if each["photo"]}
    assert len(catalogue["documents"]) == 27
    for photo in photos:
        assert page.get(f"/page/photos/{photo}").headers["content-type"] == "image/jpeg"


@pytest.mark.parametrize(
    "path", ["/page/../page.py", "/page/%2e%2e/page.py", "/page/nothing.js", "/config", "/gradio_api/info"]
)
def test_nothing_else_is_served(page: TestClient, path: str) -> None:
    assert page.get(path).status_code == 404


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_parses(name: str, node: str) -> None:
    subprocess.run([node, "--input-type=module", "--check"], input=read(name), text=True, check=True, timeout=60)


@pytest.fixture(scope="session")
def node() -> str:
    """Return the path of the Node that Playwright brings along."""
    driver = pytest.importorskip(
        "playwright._impl._driver", reason="node comes with playwright, which is not installed"
    )
    executable, *_ = driver.compute_driver_executable()
    return str(executable)
