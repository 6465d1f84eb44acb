"""The page of a gateway with two models: lychee-mini and one with other weights, each on a real Triton."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from checkpoints.changed_weights import change_weights
from lychee_client import ConfigurationError, LycheeClient
from lychee_server import TritonServer
from lychee_server.gateway.settings import GatewaySettings
from playwright.sync_api import Page, Request, Route, expect

from .conftest import NARROW, WIDE, Gateway, MakePage, Watched, choose_tab, open_page

pytestmark = pytest.mark.triton

QUERY = "a cat"
TEXTS = ["The cat sleeps on the sofa all day.", "a cup of coffee", "a kitten", "a rocket"]
MODEL = "#model"
NOTE = "#model-note"


@dataclass
class TwoModels:
    """A gateway of two models, and the addresses of their Tritons."""

    url: str
    triton_urls: dict[str, str]


@pytest.fixture(scope="module")
def two(server: TritonServer, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoModels]:
    folder = tmp_path_factory.mktemp("two-models")
    changed = change_weights(repository, folder / "changed")
    ports = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
    with TritonServer(changed, config_name="cpu", **ports, log_path=folder / "triton.log") as other:
        urls = {"mini": server.grpc_url, "changed": other.grpc_url}
        file = folder / "models.json"
        file.write_text(json.dumps({"models": {name: {"triton_url": url} for name, url in urls.items()}}))
        with Gateway(GatewaySettings(models=file)) as gateway:
            for name in urls:
                with LycheeClient(gateway.url, model=name) as client:
                    client.wait_until_ready(120)
            yield TwoModels(gateway.url, urls)


@pytest.fixture(scope="module")
def scores(two: TwoModels) -> dict[str, list[float]]:
    """What each model's own Triton gives the texts, in the order of the ranking."""
    told = {}
    for name, url in two.triton_urls.items():
        with LycheeClient(url) as client:
            told[name] = [result.relevance_score for result in client.rerank(QUERY, TEXTS)]
    assert told["mini"] != pytest.approx(told["changed"], abs=1e-3), "the models have to differ"
    return told


@pytest.fixture
def page(make_page: MakePage, two: TwoModels, watched: Watched) -> Iterator[Page]:
    page = make_page()
    open_page(page, two.url)
    yield page
    assert watched.console_errors == []


def bodies_of(page: Page, path: str) -> list[Any]:
    """Return what the page sends to a path from now on; the list grows."""
    bodies: list[Any] = []

    def note(request: Request) -> None:
        if request.url.endswith(path):
            bodies.append(request.post_data_json)

    page.on("request", note)
    return bodies


def rank_here(page: Page) -> list[float]:
    """Rank with the tab Rank, and return the scores that the gateway answered."""
    page.locator("#rank-query-text").fill(QUERY)
    page.locator("#rank-texts").fill("\n".join(TEXTS))
    with page.expect_response(lambda response: response.url.endswith("/v1/rerank")) as caught:
        page.locator("#rank-submit").click()
    expect(page.locator("#rank-result .ranking li")).to_have_count(len(TEXTS))
    return [each["relevance_score"] for each in caught.value.json()["results"]]


def test_the_client_ranks_with_the_model_of_the_name(two: TwoModels, scores: dict[str, list[float]]) -> None:
    for name, expected in scores.items():
        with LycheeClient(two.url, model=name) as client:
            response = client.rerank(QUERY, TEXTS)
            assert [result.relevance_score for result in response] == pytest.approx(expected, abs=1e-4)
            with LycheeClient(two.triton_urls[name]) as direct:
                assert response.model_version == direct.manifest().version
            served = {model.names[-1]: model for model in client.models()}
    assert {name: model.is_default for name, model in served.items()} == {"mini": True, "changed": False}
    assert response.model == served["changed"].identity
    with (
        LycheeClient(two.url, model="lychee-mimi") as client,
        pytest.raises(ConfigurationError, match=r"'lychee-mimi' is not served; expected one of .*mini.*changed"),
    ):
        client.rerank(QUERY, TEXTS)


def test_the_chosen_model_ranks_and_a_reload_keeps_it(page: Page, scores: dict[str, list[float]]) -> None:
    expect(page.get_by_label("Model", exact=True)).to_have_value("mini")
    choose_tab(page, "rank")
    bodies = bodies_of(page, "/v1/rerank")
    assert rank_here(page) == pytest.approx(scores["mini"], abs=1e-4)
    with page.expect_response(re.compile(r"/v1/settings\?model=changed$")):
        page.locator(MODEL).select_option("changed")
    expect(page.locator("#tab-rank .hint", has_text="The form has changed since.")).to_be_visible()
    assert rank_here(page) == pytest.approx(scores["changed"], abs=1e-4)
    assert [body["model"] for body in bodies] == ["mini", "changed"]
    page.reload()
    expect(page.locator(MODEL)).to_have_value("changed")


def test_keys_alone_choose(page: Page) -> None:
    page.locator(MODEL).focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator(MODEL)).to_have_value("changed")


def test_links_history_and_snippets_carry_the_model(page: Page, make_page: MakePage, two: TwoModels) -> None:
    page.locator(MODEL).select_option("changed")
    page.locator("#try-query-text").fill(QUERY)
    page.locator("#try-document-text").fill(TEXTS[0])
    bodies = bodies_of(page, "/v1/score")
    page.locator("#try-submit").click()
    expect(page.locator("#try-result .badge")).to_be_visible()
    assert [body["model"] for body in bodies] == ["changed"]
    page.locator("#try-result .use-api summary").click()
    for kind, part in {
        "curl": '"model": "changed"',
        "python": f'LycheeClient("{two.url}", model="changed")',
        "cohere": 'model="changed",',
        "langchain": 'model="changed"',
    }.items():
        page.locator(f"#try-result [data-kind={kind}]").click()
        expect(page.locator("#try-result pre.code")).to_contain_text(part)
        assert page.locator("#try-result pre.code").inner_text().count("changed") == 1, kind
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#tab-try .copying button", has_text="Copy link").click()
    expect(page.get_by_text("Copied.")).to_be_visible()
    link = page.evaluate("navigator.clipboard.readText()")
    other = make_page()
    other.goto(link)
    expect(other.locator("#try-query-text")).to_have_value(QUERY)
    expect(other.locator(MODEL)).to_have_value("changed")
    page.locator(MODEL).select_option("mini")
    page.locator("#open-history").click()
    page.locator("#history .past").first.click()
    expect(page.locator(MODEL)).to_have_value("changed")


def test_compare_sets_two_models_side_by_side(
    page: Page, scores: dict[str, list[float]], take_screenshot: Callable[..., Path]
) -> None:
    choose_tab(page, "compare")
    page.locator("#compare-query").fill(QUERY)
    page.locator("#compare-documents").fill("\n".join(TEXTS))
    page.locator("#compare-b-model").select_option("changed")
    page.locator("#compare-run").click()
    rows = page.locator("#compare-result tbody tr")
    expect(rows).to_have_count(len(TEXTS))
    shown = [float(text) for text in rows.locator("td:nth-child(3)").all_inner_texts()]
    assert shown == pytest.approx(scores["mini"], abs=1e-3)
    shown = sorted((float(text) for text in rows.locator("td:nth-child(6)").all_inner_texts()), reverse=True)
    assert shown == pytest.approx(sorted(scores["changed"], reverse=True), abs=1e-3)
    expect(page.locator("#compare-result")).to_contain_text("B: changed")
    take_screenshot(page)


def test_status_has_all_in_short_and_the_chosen_one_in_full(page: Page) -> None:
    choose_tab(page, "status")
    expect(page.locator(".served tbody tr")).to_have_count(2)
    with page.expect_response(re.compile(r"/v1/status\?model=changed$")):
        page.locator(MODEL).select_option("changed")
    expect(page.locator(".served")).to_contain_text("Everything below is about changed.")
    with page.expect_response(re.compile(r"/v1/golden-pairs\?model=changed$")):
        page.locator("#status-check-again").click()


def test_status_names_the_replicas_of_triton(make_page: MakePage, server: TritonServer) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: refuses every connection
        lost = f"127.0.0.1:{unused.getsockname()[1]}"
        with Gateway(GatewaySettings(triton_url=f"{server.grpc_url},{lost}")) as gateway:
            page = make_page()
            open_page(page, gateway.url, "status")
            rows = page.locator(".replicas tbody tr")
            expect(rows).to_have_count(2)
            expect(rows.filter(has_text=server.grpc_url)).to_contain_text("takes requests")
            expect(rows.filter(has_text=lost)).to_contain_text("away")


def test_batch_keeps_to_the_model_that_it_began_with(page: Page) -> None:
    page.locator(MODEL).select_option("changed")
    choose_tab(page, "batch")
    bodies = bodies_of(page, "/v1/rerank")
    page.locator("#batch-example").click()
    expect(page.locator("#batch-save")).to_be_visible(timeout=90_000)
    page.locator(MODEL).select_option("mini")
    expect(page.locator("#batch-start")).to_be_enabled(timeout=90_000)
    assert {body["model"] for body in bodies} == {"changed"}


def test_calibrate_measures_and_reads_the_chosen_model(page: Page) -> None:
    choose_tab(page, "calibrate")
    with page.expect_response(re.compile(r"/v1/calibration\?model=changed$")):
        page.locator(MODEL).select_option("changed")
    with page.expect_response(re.compile(r"/v1/calibrations\?.*model=changed")):
        page.locator("#calibrate-example").click()


def test_the_code_that_uses_a_calibration_asks_the_chosen_model(page: Page, two: TwoModels) -> None:
    choose_tab(page, "calibrate")
    page.locator(".use summary").click()
    page.locator(MODEL).select_option("changed")
    code = page.locator(".use pre")
    expect(code).to_contain_text(
        f'LycheeClient("{two.url}", model="changed", policy=Calibration.load("calibration.json"))'
    )
    expect(page.locator(".use details")).to_contain_text("under [models.changed] in the file of --models")
    page.locator(MODEL).select_option("mini")
    expect(code).to_contain_text('model="mini"')
    compile(code.inner_text(), "snippet", "exec")


def test_a_model_that_goes_is_told_and_not_replaced(page: Page, watched: Watched) -> None:
    page.locator(MODEL).select_option("changed")
    choose_tab(page, "rank")

    def leave_out(route: Route) -> None:
        told = route.fetch().json()
        told["data"] = [entry for entry in told["data"] if entry["name"] != "changed"]
        route.fulfill(json=told)

    refusal = {"message": "the model 'changed' is not served; expected mini", "type": "model_not_found"}
    page.route("**/v1/models", leave_out)
    page.route("**/v1/rerank", lambda route: route.fulfill(status=404, json=refusal))
    page.locator("#rank-query-text").fill(QUERY)
    page.locator("#rank-texts").fill("\n".join(TEXTS))
    page.locator("#rank-submit").click()
    expect(page.locator("#rank-alert")).to_contain_text("not served")
    expect(page.locator(NOTE)).to_contain_text("does not serve the model changed now")
    expect(page.locator(MODEL)).to_have_value("changed")
    page.unroute("**/v1/models")
    page.unroute("**/v1/rerank")
    page.locator(MODEL).select_option("mini")
    expect(page.locator(NOTE)).to_be_empty()
    watched.console_errors = [each for each in watched.console_errors if "404" not in each]


def test_nothing_of_it_is_visible_with_one_model(browser_page: Page) -> None:
    expect(browser_page.locator("#try-submit")).to_be_visible()
    expect(browser_page.locator(MODEL)).to_be_hidden()
    choose_tab(browser_page, "compare")
    expect(browser_page.locator("#compare-a-model")).to_be_hidden()
    choose_tab(browser_page, "calibrate")
    browser_page.locator(".use summary").click()
    expect(browser_page.locator(".use pre")).to_contain_text('LycheeClient("localhost:8001", policy=')
    expect(browser_page.locator(".use details")).to_contain_text("lychee gateway --calibration")
    choose_tab(browser_page, "status")
    expect(browser_page.locator("#tab-status .report")).to_be_visible()
    expect(browser_page.locator(".served")).to_be_hidden()
    choose_tab(browser_page, "try")
    bodies = bodies_of(browser_page, "/v1/score")
    browser_page.locator("#tab-try button").first.click()
    expect(browser_page.locator("#try-result .badge")).to_be_visible()
    assert all("model" not in body for body in bodies)


LOOKS = {"wide": (WIDE, "light", "en-US"), "narrow": (NARROW, "dark", "zh-CN")}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("tab", ["try", "compare", "status"])
def test_axe_finds_nothing_about_the_chooser(
    tab: str, look: str, make_page: MakePage, two: TwoModels, take_screenshot: Callable[..., Path]
) -> None:
    viewport, color_scheme, locale = LOOKS[look]
    page = make_page(viewport=viewport, color_scheme=color_scheme, locale=locale, bypass_csp=True)
    open_page(page, two.url, tab)
    expect(page.locator(MODEL)).to_be_visible()
    if tab == "status":
        expect(page.locator(".served tbody tr")).to_have_count(2)
    take_screenshot(page)
    found = Axe().run(page)
    assert [(each["id"], each["nodes"][0]["html"]) for each in found.response["violations"]] == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
