"""The page as a whole: what it is for people who do not see it or use no mouse, and what it hides."""

from __future__ import annotations

import urllib.error
import urllib.request
from http import HTTPStatus

import pytest
from playwright.sync_api import Page, expect

from .conftest import choose_tab

pytestmark = pytest.mark.triton


def test_every_field_has_a_label(browser_page: Page) -> None:
    for tab in ("score", "rerank"):
        choose_tab(browser_page, tab)
        unnamed = (
            browser_page.locator(f"#tab-{tab}")
            .locator("textarea, input:not([type=file])")
            .evaluate_all(
                "fields => fields.filter(field => field.offsetParent && !field.labels?.length && !field.ariaLabel)"
                ".map(field => field.outerHTML)"
            )
        )
        assert unnamed == []


def test_a_screen_reader_is_told_about_results_and_errors(browser_page: Page) -> None:
    choose_tab(browser_page, "rerank")
    browser_page.locator("#rerank-submit").click()
    expect(browser_page.locator("#rerank-alert").get_by_role("alert")).to_be_visible()
    browser_page.locator("#rerank-examples").click()
    expect(browser_page.locator("#rerank-result").get_by_role("status")).to_have_attribute("aria-live", "polite")


def test_nothing_on_the_page_links_elsewhere(browser_page: Page) -> None:
    links = browser_page.locator("a[href], link[href]").evaluate_all("links => links.map(link => link.href)")
    origin = browser_page.evaluate("location.origin")
    assert [link for link in links if not link.startswith((origin, "data:"))] == []


@pytest.mark.parametrize(
    "path",
    [
        "/config",
        "/gradio_api/info",
        "/gradio_api/call/score",
        "/gradio_api/file=http://127.0.0.1:1/",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/proxy=http://127.0.0.1:1/",
        "/monitoring/summary",
        "/login",
    ],
)
def test_what_the_page_does_not_need_is_not_served(page_url: str, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{page_url}{path}", timeout=10)
    with refused.value:
        assert refused.value.code in {HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN}
