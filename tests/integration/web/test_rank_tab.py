"""The tab that ranks many documents, in Chromium."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from lychee_client import Image, LycheeClient
from playwright.sync_api import Page, expect

from .conftest import NARROW, MakePage, Watched, choose_tab, open_page

pytestmark = pytest.mark.triton

QUERY = "一只猫"
TEXTS = ["The cat sleeps on the sofa all day.", "a cup of coffee", "火箭发射"]


@pytest.fixture
def page(browser_page: Page) -> Page:
    """Return the page with this tab open and the query filled in."""
    choose_tab(browser_page, "rerank")
    browser_page.locator("#rerank-query-text textarea").fill(QUERY)
    return browser_page


def upload(page: Page, *files: Path | dict[str, object]) -> None:
    page.locator("#rerank-images input[type=file]").set_input_files(list(files))
    expect(page.locator("#rerank-images tr.file")).to_have_count(len(files))


def rank(page: Page) -> None:
    page.locator("#rerank-submit").click()
    expect(page.locator("#rerank-result .decided")).to_be_visible()


def scores(page: Page) -> list[float]:
    rows = page.locator("#rerank-result .ranking li")
    return rows.evaluate_all("rows => rows.map(row => Number(row.dataset.score))")


def visible_counts(page: Page) -> list[int]:
    return [int(text) for text in page.locator("#rerank-result [data-count]").all_inner_texts()]


def test_texts_and_uploads_are_ranked_as_the_client_ranks_them(
    page: Page, client: LycheeClient, photos: Path, take_screenshot: Callable[..., Path]
) -> None:
    page.locator("#rerank-texts textarea").fill("\n".join(TEXTS))
    upload(page, photos / "cat.jpg", photos / "rocket.jpg")
    rank(page)
    images = [Image.from_path(photos / name) for name in ("cat.jpg", "rocket.jpg")]
    expected = client.rerank(QUERY, [*TEXTS, *images])
    assert scores(page) == pytest.approx([result.relevance_score for result in expected.results], abs=1e-6)
    assert page.locator("#rerank-result img").count() == 2
    take_screenshot(page)


def test_the_catalogue_is_ranked_by_one_click(browser_page: Page, take_screenshot: Callable[..., Path]) -> None:
    choose_tab(browser_page, "rerank")
    browser_page.locator("#rerank-examples").click()
    rows = browser_page.locator("#rerank-result .ranking li")
    expect(rows).to_have_count(27)
    expect(rows.first).to_contain_text("cat.jpg", use_inner_text=True)
    expect(browser_page.locator("#rerank-query-text textarea")).to_have_value(QUERY)
    take_screenshot(browser_page)


def test_the_threshold_decides_again_without_a_request(page: Page, watched: Watched) -> None:
    page.locator("#rerank-texts textarea").fill("\n".join(TEXTS))
    rank(page)
    values = scores(page)
    assert values[0] == pytest.approx(0.6929, abs=5e-4)  # plain CPU provider, float32
    assert visible_counts(page) == [1, 0, 2]
    before = len(watched.urls)
    slider = page.locator("#rerank-accept-from input[type=range]")
    slider.focus()
    for _ in range(20):  # 0.55 to 0.75
        page.keyboard.press("ArrowRight")
    expect(page.locator("#rerank-result [data-count=review]")).to_have_text("1")
    assert visible_counts(page) == [0, 1, 2]
    expect(page.locator("#rerank-policy").get_by_label("Custom")).to_be_checked()
    page.locator("#rerank-policy").get_by_label("Strict").check()
    expect(page.locator("#rerank-result [data-count=reject]")).to_have_text("3")
    assert watched.urls[before:] == []


def test_blocks_are_separated_by_dashes(page: Page) -> None:
    page.locator("#rerank-texts textarea").fill("first line\nsecond line\n---\nanother document")
    rank(page)
    assert len(scores(page)) == 2


def test_texts_and_images_are_paired(page: Page, photos: Path) -> None:
    page.locator("#rerank-texts textarea").fill("虎斑猫\n火箭")
    upload(page, photos / "cat.jpg")
    page.locator("#rerank-combination").get_by_label("pairs").check()
    page.locator("#rerank-submit").click()
    alert = page.locator("#rerank-alert").get_by_role("alert")
    expect(alert).to_contain_text("2 texts and 1 images", use_inner_text=True)
    page.locator("#rerank-texts textarea").fill("虎斑猫")
    rank(page)
    expect(page.locator("#rerank-result .ranking li")).to_contain_text("image and text", use_inner_text=True)
    expect(alert).to_have_count(0)


def test_what_users_enter_stays_text(page: Page, watched: Watched) -> None:
    hostile = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> ${1+1} {{value}}"
    name = "<img src=x onerror=alert(1)>.png"
    page.locator("#rerank-texts textarea").fill(hostile)
    upload(page, {"name": name, "mimeType": "image/png", "buffer": b"no image"})
    rank(page)
    result = page.locator("#rerank-result")
    expect(result.locator(".ranking .text")).to_have_text(hostile)
    expect(result.locator(".failed")).to_contain_text("The image cannot be read", use_inner_text=True)
    assert result.locator("script, img").count() == 0
    assert page.title() == "lychee-rerank"


def test_the_csv_is_safe_in_a_spreadsheet_and_has_the_decisions_shown(page: Page) -> None:
    texts = ['=HYPERLINK("http://x"),1', "小猫", "-1+1"]
    page.locator("#rerank-texts textarea").fill("\n".join(texts))
    rank(page)
    page.locator("#rerank-policy").get_by_label("Strict").check()
    expect(page.locator("#rerank-result .decided")).to_have_attribute("data-accept", "0.75")
    with page.expect_download() as caught:
        page.locator("[data-download=csv]").click()
    data = Path(caught.value.path()).read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")
    rows = {int(row["index"]): row for row in csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""))}
    assert [rows[index]["text"] for index in range(3)] == [f"'{texts[0]}", texts[1], f"'{texts[2]}"]
    assert all(
        row["decision"] == ("accept" if float(row["relevance_score"]) >= 0.75 else "reject") for row in rows.values()
    )


def test_the_json_has_scores_thresholds_and_errors(page: Page) -> None:
    page.locator("#rerank-texts textarea").fill("\n".join(TEXTS))
    upload(page, {"name": "broken.png", "mimeType": "image/png", "buffer": b"no image"})
    rank(page)
    with page.expect_download() as caught:
        page.locator("[data-download=json]").click()
    data = json.loads(Path(caught.value.path()).read_text(encoding="utf-8"))
    assert [entry["relevance_score"] for entry in data["results"]] == scores(page)
    assert data["thresholds"] == {"accept": 0.55, "review": 0.55}
    assert [(entry["index"], entry["file"]) for entry in data["errors"]] == [(3, "broken.png")]


def test_only_the_best_are_shown_on_request(page: Page) -> None:
    page.locator("#rerank-texts textarea").fill("\n".join(TEXTS))
    page.locator("#rerank-top-n input").fill("2")
    rank(page)
    assert len(scores(page)) == 2


def test_rejected_documents_can_be_hidden(page: Page) -> None:
    page.locator("#rerank-texts textarea").fill("\n".join(TEXTS))
    rank(page)
    page.get_by_label("Hide rejected").check()
    expect(page.locator("#rerank-result .ranking li:visible")).to_have_count(1)


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_a_phone_shows_a_ranking_without_scrolling_sideways(
    make_page: MakePage, page_url: str, take_screenshot: Callable[..., Path], color_scheme: str
) -> None:
    page = make_page(viewport=NARROW, color_scheme=color_scheme)
    open_page(page, f"{page_url}/?lang=zh", "rerank")
    page.locator("#rerank-examples").click()
    expect(page.locator("#rerank-result .ranking li")).to_have_count(27)
    assert page.evaluate("document.documentElement.scrollWidth") == NARROW["width"]
    take_screenshot(page)
