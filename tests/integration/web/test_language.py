"""The page's languages, in Chromium."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from .conftest import MakePage, Watched, choose_tab, open_page

pytestmark = pytest.mark.triton


def test_switching_keeps_inputs_and_results_and_needs_no_request(
    browser_page: Page, photos: Path, watched: Watched
) -> None:
    browser_page.locator("#try-query-text").fill("一只猫")
    browser_page.locator("#try-document-text").fill("小猫")
    browser_page.locator("#try-document-image").set_input_files(photos / "cat.jpg")
    browser_page.locator("#try-submit").click()
    score = browser_page.locator("#try-result output.figure")
    expect(score).to_be_visible()
    shown = score.inner_text()
    before = len(watched.urls)
    browser_page.locator("#language").select_option("zh")
    expect(browser_page.locator("#try-submit")).to_have_text("打分")
    expect(browser_page.get_by_role("tab").first).to_have_text("试一试")
    expect(browser_page.locator("#try-policy")).to_contain_text("均衡")
    expect(browser_page.locator("#try-result .headline .badge")).to_have_text("✓ 通过", use_inner_text=True)
    assert score.inner_text() == shown
    assert browser_page.locator("#try-query-text").input_value() == "一只猫"
    assert browser_page.locator("#tab-try fieldset img").count() == 1
    assert browser_page.evaluate("document.documentElement.lang") == "zh-CN"
    assert [url for url in watched.urls[before:] if not url.startswith("blob:")] == []
    browser_page.locator("#language").select_option("en")
    expect(browser_page.locator("#try-submit")).to_have_text("Score")
    expect(browser_page.locator("#try-result")).to_contain_text("What the model read")


def test_errors_are_told_in_the_language_of_the_page(make_page: MakePage, page_url: str) -> None:
    page = make_page()
    open_page(page, f"{page_url}/?lang=zh", "rank")
    page.locator("#rank-submit").click()
    expect(page.locator("#rank-alert").get_by_role("alert")).to_contain_text("查询为空")


@pytest.mark.parametrize(
    ("locale", "query", "expected"),
    [("zh-CN", "", "打分"), ("en-GB", "", "Score"), ("de-DE", "", "Score"), ("en-US", "?lang=zh", "打分")],
)
def test_the_page_starts_in_the_language_of_the_browser_or_of_the_url(
    make_page: MakePage, page_url: str, locale: str, query: str, expected: str
) -> None:
    page = make_page(locale=locale, timezone_id="Asia/Shanghai")  # a context in which no language was chosen before
    open_page(page, f"{page_url}/{query}")
    expect(page.locator("#try-submit")).to_have_text(expected)


def test_the_chosen_language_survives_a_reload(make_page: MakePage, page_url: str) -> None:
    page = make_page(timezone_id="Europe/Berlin")
    open_page(page, page_url)
    page.locator("#language").select_option("zh")
    expect(page.locator("#try-submit")).to_have_text("打分")
    page.reload()
    expect(page.locator("#try-submit")).to_have_text("打分")
    choose_tab(page, "rank")
    expect(page.locator("#rank-submit")).to_have_text("排序")
