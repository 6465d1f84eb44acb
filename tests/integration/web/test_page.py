"""The page as a whole: its tabs, what it keeps, links, and what it is for people who do not see it or use no mouse."""

from __future__ import annotations

import urllib.error
import urllib.request
from http import HTTPStatus
from pathlib import Path

import pytest
from lychee_server.gateway.settings import GatewaySettings
from playwright.sync_api import Page, expect

from .conftest import Gateway, MakePage, Watched, choose_tab, open_page

pytestmark = pytest.mark.triton

TABS = ("try", "rank", "compare", "batch", "calibrate", "status")


def test_every_field_has_a_label(browser_page: Page) -> None:
    for tab in ("try", "rank"):
        choose_tab(browser_page, tab)
        panel = browser_page.locator(f"#tab-{tab}")
        panel.locator("details").evaluate_all("all => all.forEach(each => { each.open = true; })")
        unnamed = panel.locator("textarea, input, select").evaluate_all(
            "fields => fields.filter(field => field.offsetParent && !field.labels?.length && !field.ariaLabel)"
            ".map(field => field.outerHTML)"
        )
        assert unnamed == []


def test_a_screen_reader_is_told_about_results_and_errors(browser_page: Page) -> None:
    choose_tab(browser_page, "rank")
    browser_page.locator("#rank-submit").click()
    expect(browser_page.locator("#rank-alert").get_by_role("alert")).to_be_visible()
    browser_page.locator("#rank-query-text").fill("a cat")
    browser_page.locator("#rank-texts").fill("a cat\ncoffee")
    browser_page.locator("#rank-submit").click()
    status = browser_page.locator("#rank-result").get_by_role("status").first
    expect(status).to_contain_text("2 of 2 documents ranked")
    expect(status).to_contain_text("accepted")
    expect(browser_page.locator("#rank-result-title")).to_be_focused()


def test_nothing_on_the_page_links_elsewhere(browser_page: Page) -> None:
    links = browser_page.locator("a[href], link[href]").evaluate_all("links => links.map(link => link.href)")
    origin = browser_page.evaluate("location.origin")
    assert [link for link in links if not link.startswith((origin, "data:"))] == []


def test_the_tabs_follow_arrow_keys_and_the_address_follows_the_tab(browser_page: Page) -> None:
    browser_page.locator("#choose-try").focus()
    browser_page.keyboard.press("ArrowRight")
    expect(browser_page.locator("#choose-rank")).to_be_focused()
    expect(browser_page.locator("#tab-rank")).to_be_visible()
    assert browser_page.evaluate("location.hash") == "#rank"
    browser_page.keyboard.press("End")
    expect(browser_page.locator("#choose-status")).to_have_attribute("aria-selected", "true")
    browser_page.go_back()
    expect(browser_page.locator("#choose-rank")).to_have_attribute("aria-selected", "true")
    browser_page.go_back()
    expect(browser_page.locator("#choose-try")).to_have_attribute("aria-selected", "true")


def test_a_reload_keeps_tab_texts_images_and_results(browser_page: Page, photos: Path) -> None:
    browser_page.locator("#try-query-text").fill("一只猫")
    browser_page.locator("#try-document-image").set_input_files(photos / "cat.jpg")
    browser_page.locator("#try-submit").click()
    expect(browser_page.locator("#try-result output.figure")).to_be_visible()
    shown = browser_page.locator("#try-result output.figure").inner_text()
    choose_tab(browser_page, "rank")
    browser_page.locator("#rank-examples").click()
    expect(browser_page.locator("#rank-result .rank-status")).to_contain_text("27 of 27")
    browser_page.locator("#rank-query-text").fill("rocket")
    browser_page.wait_for_timeout(600)  # what is typed is kept a moment later
    browser_page.reload()
    expect(browser_page.locator("#rank-result .ranking > li")).to_have_count(20)
    expect(browser_page.locator("#rank-query-text")).to_have_value("rocket")
    expect(browser_page.locator("#tab-rank .files li")).to_have_count(10)
    choose_tab(browser_page, "try")
    expect(browser_page.locator("#try-result output.figure")).to_have_text(shown)
    expect(browser_page.locator("#tab-try fieldset .thumbnail")).to_be_visible()


def test_a_link_restores_tab_texts_and_policy_but_no_images(
    browser_page: Page, make_page: MakePage, photos: Path
) -> None:
    browser_page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    choose_tab(browser_page, "rank")
    browser_page.locator("#rank-query-text").fill("一只猫 🐈")
    browser_page.locator("#rank-texts").fill("one\ntwo")
    browser_page.locator("#rank-images").set_input_files(photos / "cat.jpg")
    browser_page.locator("#tab-rank").get_by_role("button", name="Copy link").click()
    expect(browser_page.locator("#tab-rank")).to_contain_text("Copied.")
    link = browser_page.evaluate("navigator.clipboard.readText()")
    other = make_page(viewport={"width": 1000, "height": 800})
    other.goto(link)
    expect(other.locator("#rank-query-text")).to_have_value("一只猫 🐈")
    expect(other.locator("#rank-texts")).to_have_value("one\ntwo")
    expect(other.locator("#tab-rank .files li")).to_have_count(0)
    assert other.evaluate("location.hash") == "#rank"


@pytest.mark.parametrize("address", ["#nothing", "#rank/no-state", "#try/AAAA", "#rank/q1Y"])
def test_a_link_that_cannot_be_read_opens_the_page_all_the_same(
    make_page: MakePage, page_url: str, address: str
) -> None:
    page = make_page()
    page.goto(f"{page_url}/{address}")
    expect(page.locator("[role=tabpanel]:not([hidden]) button.submit")).to_be_visible()


def test_past_calls_come_back_with_their_results_until_they_are_deleted(browser_page: Page) -> None:
    def open_history() -> None:
        browser_page.locator("#open-history").click()
        expect(browser_page.locator("#history")).to_be_visible()

    open_history()
    if browser_page.get_by_role("button", name="Clear all").is_enabled():
        browser_page.get_by_role("button", name="Clear all").click()
    expect(browser_page.locator("#history")).to_contain_text("Nothing yet.")
    browser_page.get_by_role("button", name="Close", exact=True).click()
    for example in ("photo", "bad"):
        browser_page.locator(f"[data-example={example}]").click()
        expect(browser_page.locator("#try-result .headline")).to_be_visible()
        browser_page.wait_for_timeout(300)
    entries = browser_page.locator("#history .history li")
    open_history()
    expect(entries).to_have_count(2)
    expect(entries.first).to_contain_text("rocket.jpg")
    entries.nth(1).locator(".past").click()
    expect(browser_page.locator("#try-query-text")).to_have_value("一只猫")
    expect(browser_page.locator("#try-result .headline")).to_have_attribute("data-decision", "accept")
    expect(browser_page.locator("#tab-try fieldset .thumbnail")).to_be_visible()
    open_history()
    entries.first.get_by_role("button", name="Delete").click()
    expect(entries).to_have_count(1)
    browser_page.get_by_label("Keep calls from now on").uncheck()
    browser_page.get_by_role("button", name="Close", exact=True).click()
    browser_page.locator("[data-example=text]").click()
    expect(browser_page.locator("#try-query-text")).to_have_value("火箭发射")
    expect(browser_page.locator("#try-result .headline")).to_be_visible()
    open_history()
    expect(entries).to_have_count(1)
    browser_page.get_by_label("Keep calls from now on").check()


def test_colours_can_be_chosen_and_are_kept(browser_page: Page) -> None:
    def background() -> str:
        return str(browser_page.evaluate("getComputedStyle(document.body).backgroundColor"))

    light = background()
    browser_page.locator("#theme").select_option("dark")
    dark = background()
    assert dark != light
    browser_page.reload()
    expect(browser_page.locator("#try-submit")).to_be_visible()
    assert background() == dark
    browser_page.locator("#theme").select_option("system")
    assert background() == light


def test_a_browser_that_keeps_nothing_shows_the_page_all_the_same(
    make_page: MakePage, page_url: str, watched: Watched
) -> None:
    page = make_page()
    page.add_init_script(
        "for (const name of ['localStorage', 'sessionStorage', 'indexedDB'])"
        " Object.defineProperty(window, name, { get() { throw new DOMException('no', 'SecurityError'); } });"
    )
    open_page(page, page_url)
    page.locator("[data-example=text]").click()
    expect(page.locator("#try-result .headline")).to_be_visible()
    page.locator("#theme").select_option("dark")
    assert watched.console_errors == []


def test_a_gateway_with_keys_asks_for_one(make_page: MakePage, server, watched: Watched) -> None:  # type: ignore[no-untyped-def]
    with Gateway(GatewaySettings(triton_url=server.grpc_url, api_keys=("secret-key-of-the-test",))) as gateway:
        page = make_page()
        page.goto(gateway.url)
        for key in ("wrong", "secret-key-of-the-test"):
            expect(page.locator("dialog[open] #api-key")).to_be_visible()
            page.locator("dialog[open] #api-key").fill(key)
            page.get_by_role("button", name="Use it").click()
            page.wait_for_timeout(500)
        page.locator("[data-example=text]").click()
        expect(page.locator("#try-result .headline")).to_be_visible()
        page.locator(".use-api summary").first.click()
        code = page.locator(".use-api .code").first
        expect(code).to_contain_text("$LYCHEE_API_KEY")
        assert "secret-key" not in code.inner_text()
        page.close()


@pytest.mark.parametrize(
    "path",
    ["/config", "/gradio_api/info", "/gradio_api/file=/etc/passwd", "/page/../page.py", "/page/nothing.js", "/login"],
)
def test_what_the_page_does_not_need_is_not_served(page_url: str, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{page_url}{path}", timeout=10)
    with refused.value:
        assert refused.value.code in {HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN}
