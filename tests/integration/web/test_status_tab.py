"""The tab Status in a real browser, on a real model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, Request, expect

from .conftest import NARROW, choose_tab

pytestmark = pytest.mark.triton

RESULT = "#status-result"


def is_event(request: Request) -> bool:
    return "queue/join" in request.url


def test_models_golden_pairs_settings_and_versions_are_shown(
    browser_page: Page, take_screenshot: Callable[..., Path]
) -> None:
    page = browser_page
    choose_tab(page, "status")
    result = page.locator(RESULT)
    expect(result.locator(".state").get_by_text("Ready")).to_be_visible()
    expect(result.locator(".models")).to_contain_text("vision_encoder")
    expect(result).to_contain_text("lychee-mini")
    expect(result.locator(".golden")).to_have_attribute("data-passed", "true")
    expect(result.locator("table.pairs tbody tr")).to_have_count(9)
    expect(result).to_contain_text("max-documents")
    expect(result).to_contain_text("lychee-rerank-server")
    take_screenshot(page)
    page.locator("#language").get_by_text("中文").click()
    expect(result.locator(".state").get_by_text("就绪")).to_be_visible()
    expect(result.locator(".state").get_by_text("Ready")).to_be_hidden()
    page.set_viewport_size(NARROW)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    take_screenshot(page, "narrow zh")


def test_golden_pairs_are_replayed_on_request(browser_page: Page) -> None:
    page = browser_page
    choose_tab(page, "status")
    checked_at = page.locator(f"{RESULT} .golden + p")
    before = checked_at.inner_text()
    page.wait_for_function("Date.now() % 1000 < 100")  # the time that is shown has whole seconds
    page.locator("#status-check-again").click()
    expect(checked_at).not_to_have_text(before)


def test_tab_refreshes_while_it_is_open_keeps_focus_and_asks_nothing_once_it_is_left(browser_page: Page) -> None:
    page = browser_page
    choose_tab(page, "status")
    taken_at = page.locator(f"{RESULT} .banner .note")
    first = taken_at.inner_text()
    page.locator("#status-check-again").focus()
    page.evaluate("window.scrollTo(0, 300)")
    expect(taken_at).not_to_have_text(first)
    expect(page.locator("#status-check-again")).to_be_focused()
    assert page.evaluate("window.scrollY") == 300

    choose_tab(page, "score")
    events: list[str] = []
    page.on("request", lambda request: is_event(request) and events.append(request.url))
    page.clock.install()
    page.clock.run_for(20_000)
    assert events == []


def test_gateway_without_triton_says_what_to_do(make_page: Callable[..., Page], lost_page_url: str) -> None:
    page = make_page()
    page.goto(lost_page_url)
    expect(page.locator("#score-submit")).to_be_visible()
    choose_tab(page, "status")
    expect(page.locator(RESULT)).to_contain_text("Triton does not answer")
    expect(page.locator(f"{RESULT} .state")).not_to_contain_text("Ready")
