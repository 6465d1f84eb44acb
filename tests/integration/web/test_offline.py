"""Neither page needs another site: every request and websocket of the browser goes to the gateway's own origin."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from .conftest import MakePage, Watched, choose_tab

pytestmark = pytest.mark.triton


def test_no_request_leaves_the_page_while_every_tab_is_used(
    browser_page: Page, watched: Watched, page_url: str, photos: Path
) -> None:
    browser_page.locator("#try-query-text").fill("一只猫")
    browser_page.locator("#try-document-image").set_input_files(photos / "cat.jpg")
    browser_page.locator("#try-submit").click()
    expect(browser_page.locator("#try-result output.figure")).to_be_visible()
    choose_tab(browser_page, "rank")
    browser_page.locator("#rank-examples").click()
    expect(browser_page.locator("#rank-result .rank-status")).to_be_visible()
    for tab in ("compare", "batch", "calibrate", "status"):
        choose_tab(browser_page, tab)
    assert len(watched.urls) > 20
    assert watched.elsewhere(page_url) == []


def test_the_policy_of_the_page_stops_what_would_leave_it(browser_page: Page, watched: Watched) -> None:
    browser_page.evaluate("fetch('http://192.0.2.1/').catch(() => {})")
    expect(browser_page.locator("#try-submit")).to_be_visible()
    assert [error for error in watched.console_errors if "Content Security Policy" in error]
    watched.console_errors.clear()


def test_no_request_leaves_the_documentation_while_a_call_is_tried(
    make_page: MakePage, watched: Watched, page_url: str
) -> None:
    page = make_page()
    page.goto(f"{page_url}/docs")
    call = page.locator(".opblock", has=page.get_by_text("/v1/rerank", exact=True))
    call.locator(".opblock-summary-control").click()
    call.get_by_role("button", name="Try it out").click()
    call.get_by_role("button", name="Execute").click()
    expect(call.locator(".live-responses-table .response-col_status").last).to_contain_text("200")
    expect(call.locator(".live-responses-table")).to_contain_text("relevance_score")
    page.wait_for_load_state("networkidle")
    assert f"{page_url}/v1/rerank?strict=false" in watched.urls
    assert watched.elsewhere(page_url) == []
    assert watched.console_errors == []
