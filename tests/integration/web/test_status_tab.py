"""The tab Status in a real browser, on a real model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lychee_server import TritonServer
from lychee_server.gateway.settings import GatewaySettings
from playwright.sync_api import Page, Route, expect

from .conftest import NARROW, Gateway, choose_tab, open_page

pytestmark = pytest.mark.triton

TAB = "#tab-status"
MakePage = Callable[..., Page]


@pytest.fixture
def status(browser_page: Page) -> Page:
    """Open the tab, and wait until it shows the model."""
    choose_tab(browser_page, "status")
    expect(browser_page.locator(f"{TAB} .state")).to_contain_text("Ready")
    return browser_page


def answer(page: Page) -> dict[str, object]:
    """Return what the gateway says right now."""
    told: dict[str, object] = page.evaluate("fetch('v1/status').then((answer) => answer.json())")
    return told


def replace_answer(page: Page, told: dict[str, object]) -> None:
    """Have the page see another status from now on."""

    def fulfill(route: Route) -> None:
        route.fulfill(json=told)

    page.route("**/v1/status", fulfill)


def test_what_runs_golden_pairs_settings_and_versions_are_shown(
    status: Page, take_screenshot: Callable[..., Path]
) -> None:
    row = status.locator(f"{TAB} .models tbody tr", has_text="vision_encoder")
    expect(row).to_contain_text("cpu fp32")
    expect(row).to_contain_text("CPU")
    expect(status.locator(TAB)).to_contain_text("lychee-mini")
    expect(status.locator(f"{TAB} .golden")).to_have_attribute("data-state", "passed")
    status.locator(f"{TAB} .golden-card summary").click()
    expect(status.locator(f"{TAB} table.pairs tbody tr")).to_have_count(9)
    status.locator(f"{TAB} .settings summary").click()
    setting = status.locator(f"{TAB} .settings .facts > div", has_text="api-keys-file")
    expect(setting).to_contain_text("not set")
    expect(status.locator(f"{TAB} .versions")).to_contain_text("lychee-rerank-server")
    take_screenshot(status)
    status.locator("#language").select_option("zh")
    expect(status.locator(f"{TAB} .state")).to_contain_text("就绪")
    expect(status.locator(f"{TAB} .golden")).to_contain_text("一致")
    status.set_viewport_size(NARROW)
    assert status.evaluate("document.documentElement.scrollWidth <= innerWidth")
    take_screenshot(status, "narrow zh")
    status.locator("#language").select_option("en")  # the browser remembers it, also for the tests below


def test_charts_show_calls_in_words_too(status: Page) -> None:
    rate = status.locator(f"{TAB} .chart svg[role=img]").first
    expect(rate).to_have_attribute("aria-label", re.compile("Calls per second, the last 15 minutes"))
    body = {"query": "a cat", "documents": ["a tabby cat", "a rocket"]}
    status.evaluate(
        "(body) => fetch('v1/rerank', {method: 'POST', headers: {'content-type': 'application/json'}, body})",
        json.dumps(body),
    )
    latency = status.locator(f"{TAB} .chart", has_text="Latency")
    expect(latency.locator("path.line-0").first).to_have_attribute("d", re.compile("M"))
    status.locator(f"{TAB} .minutes-card summary").click()
    expect(status.locator(f"{TAB} table.minutes tbody tr").first).to_be_visible()


def test_golden_pairs_are_replayed_on_request_and_not_twice_at_once(make_page: MakePage, page_url: str) -> None:
    status = make_page()  # its console has the 429 as an error
    open_page(status, page_url, "status")
    expect(status.locator(f"{TAB} .golden")).to_have_attribute("data-state", "passed")
    before = answer(status)["golden"]["checked_at"]  # type: ignore[index]
    button = status.locator("#status-check-again")
    button.click()
    expect(button).not_to_have_attribute("aria-disabled", "true")
    assert answer(status)["golden"]["checked_at"] > before  # type: ignore[index]
    expect(button).to_be_focused()
    button.click()
    expect(status.locator(f"{TAB} .golden-card [role=alert]")).to_contain_text("a moment ago")


def test_tab_asks_while_it_is_watched_and_not_otherwise(browser_page: Page) -> None:
    page = browser_page
    asked: list[str] = []
    page.on("request", lambda request: request.url.endswith("/v1/status") and asked.append(request.url))
    page.clock.install()
    choose_tab(page, "status")
    expect(page.locator(f"{TAB} .report")).to_be_visible()
    page.locator("#status-check-again").focus()
    with page.expect_response("**/v1/status"):
        page.clock.run_for(6_000)
    expect(page.locator("#status-check-again")).to_be_focused()

    page.evaluate(
        "Object.defineProperty(document, 'visibilityState', {value: 'hidden', configurable: true});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    page.wait_for_timeout(500)
    asked.clear()
    page.clock.run_for(20_000)
    assert asked == []
    with page.expect_response("**/v1/status"):
        page.evaluate("delete document.visibilityState; document.dispatchEvent(new Event('visibilitychange'))")

    choose_tab(page, "rank")
    page.wait_for_timeout(500)
    asked.clear()
    page.clock.run_for(20_000)
    assert asked == []


def test_bundle_is_downloaded_and_a_gateway_that_makes_none_says_so(status: Page) -> None:
    found = {"status": 200, "body": "a bundle", "headers": {"content-disposition": 'attachment; filename="lychee.zip"'}}
    status.route("**/v1/support-bundle", lambda route: route.fulfill(**found))  # type: ignore[arg-type]
    with status.expect_download() as download:
        status.locator("#status-bundle").click()
    assert download.value.suggested_filename == "lychee.zip"


def test_a_gateway_without_bundles_says_what_to_do(make_page: MakePage, page_url: str) -> None:
    page = make_page()
    page.route("**/v1/support-bundle", lambda route: route.fulfill(status=404, json={"message": "nothing here"}))
    open_page(page, page_url, "status")
    page.locator("#status-bundle").click()
    expect(page.locator(f"{TAB} .bundle [role=alert]")).to_contain_text("lychee doctor --bundle")


def test_what_the_server_says_stays_text(status: Page) -> None:
    told = answer(status)
    bad = "<img src=x onerror=alert(1)>"
    told["reason"] = bad
    told["models"][0]["name"] = bad  # type: ignore[index]
    told["errors"]["triton"] = [bad]  # type: ignore[index]
    replace_answer(status, told)
    expect(status.locator(f"{TAB} .banner .reason")).to_have_text(bad)
    expect(status.locator(f"{TAB} .errors-card code").first).to_have_text(bad)
    assert status.locator(f"{TAB} img").count() == 0


@pytest.fixture
def own_triton(repository: Path, tmp_path: Path) -> Iterator[TritonServer]:
    """Start a Triton that a test may kill."""
    ports = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
    with TritonServer(repository, config_name="cpu", **ports, log_path=tmp_path / "triton.log") as server:
        yield server


def test_golden_pairs_turn_grey_when_triton_goes_away(
    make_page: MakePage, own_triton: TritonServer, take_screenshot: Callable[..., Path]
) -> None:
    with Gateway(GatewaySettings(triton_url=own_triton.grpc_url, timeout_s=3)) as gateway:
        page = make_page()
        open_page(page, gateway.url, "status")
        golden = page.locator(f"{TAB} .golden")
        expect(golden).to_have_attribute("data-state", "passed", timeout=60_000)
        own_triton.stop()
        expect(golden).to_have_attribute("data-state", "outdated")
        expect(golden).to_contain_text("Not checked since Triton")
        expect(page.locator(f"{TAB} .checked-at")).to_contain_text("Last checked at")
        expect(page.locator(f"{TAB} .state")).to_contain_text("Unavailable")
        expect(page.locator(f"{TAB} .banner")).to_contain_text("lychee load")
        page.locator("#status-check-again").click()
        expect(page.locator(f"{TAB} .golden-card [role=alert]")).to_contain_text("not ready")
        expect(golden).to_have_attribute("data-state", "outdated")
        expect(page.locator(f"{TAB} .errors-card")).to_contain_text("the gateway is unavailable")
        take_screenshot(page, "triton away")


def test_gateway_that_is_gone_leaves_nothing_that_looks_true(make_page: MakePage, page_url: str) -> None:
    page = make_page()
    open_page(page, page_url, "status")
    expect(page.locator(f"{TAB} .report")).to_be_visible()
    page.route("**/v1/status", lambda route: route.abort())
    expect(page.locator(f"{TAB} [role=alert]")).to_contain_text("does not answer")
    expect(page.locator(f"{TAB} .golden")).to_be_hidden()


def test_gateway_whose_triton_never_came_says_what_to_do(make_page: MakePage, lost_page_url: str) -> None:
    page = make_page()
    open_page(page, lost_page_url, "status")
    expect(page.locator(f"{TAB} .banner")).to_contain_text("Triton does not answer")
    expect(page.locator(f"{TAB} .state")).not_to_contain_text("Ready")
    expect(page.locator(f"{TAB} .golden")).to_have_attribute("data-state", "never")
