"""axe finds nothing on any tab, with results on it: labels, roles, contrast, order of headings and more."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from .conftest import NARROW, WIDE, MakePage, open_page

pytestmark = pytest.mark.triton

# What fills a tab, and what shows that it is full; the first button of Try is an example.
FILLED = {
    "try": ("#tab-try button >> nth=0", "#tab-try .badge >> nth=0"),
    "rank": ("#rank-examples", "#rank-result .ranking li >> nth=0"),
    "batch": ("#batch-example", "#tab-batch tbody tr >> nth=0"),
    "calibrate": ("#calibrate-example", "#calibrate-curves svg >> nth=0"),
    "compare": (None, "#compare-query"),
    "status": (None, "#tab-status svg >> nth=0"),
}
LOOKS = {"wide": (WIDE, "light", "en-US"), "narrow": (NARROW, "dark", "zh-CN")}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("tab", FILLED)
def test_axe_finds_nothing(tab: str, look: str, make_page: MakePage, page_url: str) -> None:
    viewport, color_scheme, locale = LOOKS[look]
    page: Page = make_page(viewport=viewport, color_scheme=color_scheme, locale=locale, bypass_csp=True)
    open_page(page, page_url, tab)
    button, sign = FILLED[tab]
    if button is not None:
        page.locator(button).click()
    expect(page.locator(sign)).to_be_visible(timeout=90_000)
    expect(page.locator(f"#tab-{tab} progress:visible")).to_have_count(0, timeout=90_000)
    found = Axe().run(page)
    assert [(each["id"], each["nodes"][0]["html"]) for each in found.response["violations"]] == []
