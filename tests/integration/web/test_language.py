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
    browser_page.locator("#score-query-text textarea").fill("一只猫")
    browser_page.locator("#score-document-text textarea").fill("小猫")
    browser_page.locator("#score-document-image input[type=file]").set_input_files(photos / "cat.jpg")
    expect(browser_page.locator("#score-document-image img")).to_be_visible()
    browser_page.locator("#score-submit").click()
    score = browser_page.locator("#score-result output")
    expect(score).to_be_visible()
    shown = score.inner_text()
    before = len(watched.urls)
    browser_page.locator("#language").get_by_label("中文").check()
    expect(browser_page.locator("#score-submit")).to_have_text("打分")
    expect(browser_page.get_by_role("tab").first).to_have_text("单条打分")
    expect(browser_page.locator("#score-policy")).to_contain_text("严格")
    expect(browser_page.locator("#score-result .headline .badge:visible")).to_have_text("✓ 通过", use_inner_text=True)
    assert score.inner_text() == shown
    assert browser_page.locator("#score-query-text textarea").input_value() == "一只猫"
    assert browser_page.locator("#score-document-image img").count() == 1
    assert browser_page.evaluate("document.documentElement.lang") == "zh"
    assert watched.urls[before:] == []
    browser_page.locator("#language").get_by_label("English").check()
    expect(browser_page.locator("#score-submit")).to_have_text("Score")
    expect(browser_page.locator("#score-result")).to_contain_text("What the model read", use_inner_text=True)


def test_errors_are_told_in_the_language_of_the_page(make_page: MakePage, page_url: str) -> None:
    page = make_page()
    open_page(page, f"{page_url}/?lang=zh", "rerank")
    page.locator("#rerank-submit").click()
    expect(page.locator("#rerank-alert").get_by_role("alert")).to_contain_text("查询为空", use_inner_text=True)


@pytest.mark.parametrize(
    ("locale", "query", "expected"),
    [("zh-CN", "", "打分"), ("en-GB", "", "Score"), ("de-DE", "", "Score"), ("en-US", "?lang=zh", "打分")],
)
def test_the_page_starts_in_the_language_of_the_browser_or_of_the_url(
    make_page: MakePage, page_url: str, locale: str, query: str, expected: str
) -> None:
    page = make_page(locale=locale)
    open_page(page, f"{page_url}/{query}")
    expect(page.locator("#score-submit")).to_have_text(expected)


def test_the_chosen_language_survives_a_reload(browser_page: Page) -> None:
    browser_page.locator("#language").get_by_label("中文").check()
    expect(browser_page.locator("#score-submit")).to_have_text("打分")
    browser_page.reload()
    expect(browser_page.locator("#score-submit")).to_have_text("打分")
    choose_tab(browser_page, "rerank")
    expect(browser_page.locator("#rerank-submit")).to_have_text("排序")
