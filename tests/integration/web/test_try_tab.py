"""The tab that scores one pair, in Chromium."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from lychee_client import Image, ImageText, LycheeClient
from playwright.sync_api import Page, expect

from .conftest import NARROW, MakePage, open_page

pytestmark = pytest.mark.triton

QUERY = "一只猫"
TEXT = "虎斑猫，两岁，性格温顺，等待领养。"


def fill_pair(page: Page, photo: Path) -> None:
    page.locator("#score-query-text textarea").fill(QUERY)
    page.locator("#score-document-text textarea").fill(TEXT)
    page.locator("#score-document-image input[type=file]").set_input_files(photo)
    expect(page.locator("#score-document-image img")).to_be_visible()


def test_a_pair_is_scored_as_the_client_scores_it_and_explained(
    browser_page: Page, client: LycheeClient, photos: Path, take_screenshot: Callable[..., Path]
) -> None:
    fill_pair(browser_page, photos / "cat.jpg")
    browser_page.locator("#score-submit").click()
    result = browser_page.locator("#score-result")
    document = ImageText(Image.from_path(photos / "cat.jpg"), TEXT)
    scores = [client.score(QUERY, variant) for variant in (document, TEXT, document.image)]
    expect(result.locator("output")).to_have_text(f"{scores[0]:.3f}")
    assert result.locator(".why td.number").all_inner_texts() == [f"{score:.3f}" for score in scores]
    expect(result.locator(".headline .badge:visible")).to_have_text("✓ accept", use_inner_text=True)
    expect(result).to_contain_text("451 × 300 → 384 × 256", use_inner_text=True)
    take_screenshot(browser_page)


def test_another_policy_decides_again_without_a_request(browser_page: Page, watched) -> None:
    browser_page.locator("#score-query-text textarea").fill(QUERY)
    browser_page.locator("#score-document-text textarea").fill("The cat sleeps on the sofa all day.")  # 0.693
    browser_page.locator("#score-submit").click()
    badge = browser_page.locator("#score-result .headline .badge:visible")
    expect(badge).to_have_text("✓ accept", use_inner_text=True)
    before = len(watched.urls)
    browser_page.locator("#score-policy").get_by_label("Strict").check()
    expect(badge).to_have_text("✕ reject", use_inner_text=True)
    assert watched.urls[before:] == []


def test_an_empty_query_is_explained_and_the_explanation_goes_away(browser_page: Page) -> None:
    browser_page.locator("#score-submit").click()
    alert = browser_page.locator("#score-alert").get_by_role("alert")
    expect(alert).to_contain_text("The query is empty", use_inner_text=True)
    browser_page.locator("#score-query-text textarea").fill(QUERY)
    browser_page.locator("#score-document-text textarea").fill(TEXT)
    browser_page.locator("#score-submit").click()
    expect(browser_page.locator("#score-result output")).to_be_visible()
    expect(alert).to_have_count(0)


def test_an_unreadable_image_is_named(browser_page: Page) -> None:
    browser_page.locator("#score-query-text textarea").fill(QUERY)
    broken = {"name": "<b>broken</b>.jpg", "mimeType": "image/jpeg", "buffer": b"no image"}
    browser_page.locator("#score-document-image input[type=file]").set_input_files(broken)
    expect(browser_page.locator("#score-document-image img")).to_be_visible()
    browser_page.locator("#score-submit").click()
    alert = browser_page.locator("#score-alert").get_by_role("alert")
    expect(alert).to_contain_text("The document's image", use_inner_text=True)
    assert alert.locator("b").count() == 0


def test_a_pair_is_scored_with_the_keyboard_alone(browser_page: Page) -> None:
    def focus(selector: str) -> None:
        for _ in range(40):
            if browser_page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
            browser_page.keyboard.press("Tab")
        pytest.fail(f"{selector} cannot be reached with the Tab key")

    focus("#score-query-text textarea")
    browser_page.keyboard.type("a yellow flower")
    focus("#score-document-text textarea")
    browser_page.keyboard.type("Dahlias bloom in late summer.")
    browser_page.keyboard.press("Control+Enter")
    expect(browser_page.locator("#score-result output")).to_be_visible()
    focus("#score-policy input[value=strict]")
    browser_page.keyboard.press("Space")
    focus("#score-submit")
    assert browser_page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_a_lost_server_is_explained(make_page: MakePage, lost_page_url: str) -> None:
    page = make_page()
    open_page(page, lost_page_url)
    page.locator("#score-query-text textarea").fill(QUERY)
    page.locator("#score-document-text textarea").fill(TEXT)
    page.locator("#score-submit").click()
    expect(page.locator("#score-alert").get_by_role("alert")).to_contain_text("lychee load", use_inner_text=True)


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_a_phone_shows_everything_without_scrolling_sideways(
    make_page: MakePage, page_url: str, photos: Path, take_screenshot: Callable[..., Path], color_scheme: str
) -> None:
    page = make_page(viewport=NARROW, color_scheme=color_scheme)
    open_page(page, f"{page_url}/?lang=zh")
    fill_pair(page, photos / "cat.jpg")
    page.locator("#score-submit").click()
    expect(page.locator("#score-result output")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == NARROW["width"]
    take_screenshot(page)
