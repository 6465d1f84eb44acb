"""The tab that ranks many documents, in Chromium."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from lychee_client import Image, LycheeClient
from playwright.sync_api import Page, Route, expect

from .conftest import NARROW, MakePage, Watched, choose_tab, open_page

pytestmark = pytest.mark.triton

QUERY = "一只猫"
TEXTS = ["The cat sleeps on the sofa all day.", "a cup of coffee", "火箭发射"]
BROKEN = {"name": "broken.png", "mimeType": "image/png", "buffer": b"no image"}
MANY = 90  # several pieces and pages


@pytest.fixture
def page(browser_page: Page) -> Page:
    """Return the page with this tab open and the query filled in."""
    choose_tab(browser_page, "rank")
    browser_page.locator("#rank-query-text").fill(QUERY)
    return browser_page


def upload(page: Page, *files: Path | dict[str, object]) -> None:
    page.locator("#rank-images").set_input_files(list(files))
    expect(page.locator("#tab-rank .files li")).to_have_count(len(files))


def rank(page: Page) -> None:
    page.locator("#rank-submit").click()
    expect(page.locator("#rank-result .rank-status")).to_be_visible()


def scores(page: Page) -> list[float]:
    rows = page.locator("#rank-result .ranking > li")
    return rows.evaluate_all("rows => rows.map(row => Number(row.dataset.score))")


def visible_counts(page: Page) -> list[int]:
    return [int(text) for text in page.locator("#rank-result [data-count]").all_inner_texts()]


def open_policy(page: Page) -> None:
    page.locator("#rank-policy summary").click()


def hold_calls(page: Page) -> list[Route]:
    """Have every call but the first wait; return those that do."""
    held: list[Route] = []
    seen = 0

    def hold(route: Route) -> None:
        nonlocal seen
        seen += 1
        if seen == 1:
            route.continue_()
        else:
            held.append(route)

    page.route("**/v1/rerank", hold)
    return held


def test_texts_and_uploads_are_ranked_as_the_client_ranks_them(
    page: Page, client: LycheeClient, photos: Path, take_screenshot: Callable[..., Path]
) -> None:
    page.locator("#rank-texts").fill("\n".join(TEXTS))
    upload(page, photos / "cat.jpg", photos / "rocket.jpg")
    rank(page)
    images = [Image.from_path(photos / name) for name in ("cat.jpg", "rocket.jpg")]
    expected = client.rerank(QUERY, [*TEXTS, *images])
    assert scores(page) == pytest.approx([result.relevance_score for result in expected.results], abs=1e-6)
    assert page.locator("#rank-result img").count() == 2
    take_screenshot(page)


def test_the_catalogue_is_ranked_by_one_click(page: Page, take_screenshot: Callable[..., Path]) -> None:
    page.locator("#rank-examples").click()
    expect(page.locator("#rank-result .rank-status")).to_contain_text("27 of 27 documents")
    rows = page.locator("#rank-result .ranking > li")
    expect(rows).to_have_count(20)
    expect(rows.first).to_contain_text("cat.jpg")
    expect(page.locator("#rank-query-text")).to_have_value(QUERY)
    take_screenshot(page)


def test_results_stand_beside_the_form_and_come_into_view(page: Page) -> None:
    page.set_viewport_size({"width": 1440, "height": 900})
    page.locator("#rank-texts").fill("\n".join(TEXTS))
    rank(page)
    form, result = page.locator("#tab-rank form").bounding_box(), page.locator("#rank-result").bounding_box()
    assert form
    assert result
    assert result["x"] >= form["x"] + form["width"]
    expect(page.locator("#rank-result .ranking > li").first).to_be_in_viewport()
    heights = page.locator(".row > summary").evaluate_all("rows => rows.map(row => row.offsetHeight)")
    assert all(40 <= height <= 56 for height in heights)


def test_many_documents_make_pages_and_no_long_page(page: Page) -> None:
    page.locator("#rank-texts").fill("\n".join(f"document {number}" for number in range(MANY)))
    rank(page)
    expect(page.locator("#rank-result .rank-status")).to_contain_text(f"{MANY} of {MANY} documents")
    assert page.evaluate("document.documentElement.scrollHeight") < 2500
    seen = scores(page)
    while page.locator("[data-page=next]").is_enabled():
        page.locator("[data-page=next]").click()
        expect(page.locator("#rank-counts")).to_be_in_viewport()
        seen += scores(page)
    assert len(seen) == MANY
    assert seen == pytest.approx(sorted(seen, reverse=True), abs=1e-6)  # the order is that of the logits


def test_a_ranking_counts_and_what_is_there_when_it_is_cancelled_stays(page: Page) -> None:
    held = hold_calls(page)
    page.locator("#rank-texts").fill("\n".join(f"document {number}" for number in range(MANY)))
    page.locator("#rank-submit").click()
    expect(page.locator("#rank-submit")).to_have_text("Cancel")
    expect(page.locator("#rank-result .progress")).to_contain_text(f"8 of {MANY}")
    expect(page.locator("#rank-result")).to_have_attribute("aria-busy", "true")
    page.locator("#rank-submit").click()
    expect(page.locator("#rank-result .rank-status")).to_contain_text(f"Cancelled: 8 of {MANY}")
    expect(page.locator("#rank-submit")).to_have_text("Rank")
    assert len(scores(page)) == 8
    assert held
    page.unroute("**/v1/rerank")


def test_a_busy_gateway_is_asked_again_after_as_long_as_it_says(page: Page, watched: Watched) -> None:
    answers = [429, 503]

    def refuse_first(route: Route) -> None:
        if answers:
            route.fulfill(
                status=answers.pop(), headers={"retry-after": "1"}, json={"message": "busy", "type": "too_busy"}
            )
        else:
            route.continue_()

    page.route("**/v1/rerank", refuse_first)
    page.locator("#rank-texts").fill("\n".join(TEXTS))
    rank(page)
    assert len(scores(page)) == 3
    page.unroute("**/v1/rerank")
    watched.console_errors.clear()


def test_a_failure_in_the_middle_is_told_and_what_is_there_stays(page: Page, watched: Watched) -> None:
    held = hold_calls(page)
    page.locator("#rank-texts").fill("\n".join(f"document {number}" for number in range(MANY)))
    page.locator("#rank-submit").click()
    expect(page.locator("#rank-result .progress")).to_contain_text(f"8 of {MANY}")
    held[0].fulfill(status=500, json={"message": "it broke", "type": "internal_error"})
    expect(page.locator("#rank-alert").get_by_role("alert")).to_contain_text("it broke")
    expect(page.locator("#rank-result .rank-status")).to_contain_text(f"Stopped by an error: 8 of {MANY}")
    assert len(scores(page)) == 8
    page.unroute("**/v1/rerank")
    watched.console_errors.clear()


def test_the_threshold_decides_again_without_a_request(page: Page, watched: Watched) -> None:
    page.locator("#rank-texts").fill("\n".join(TEXTS))
    rank(page)
    values = scores(page)
    assert values[0] == pytest.approx(0.6929, abs=5e-4)  # plain CPU provider, float32
    assert visible_counts(page) == [1, 0, 2]
    before = len(watched.urls)
    open_policy(page)
    slider = page.locator("#rank-policy-accept")
    slider.focus()
    for _ in range(20):  # 0.55 to 0.75
        page.keyboard.press("ArrowRight")
    expect(page.locator("#rank-result [data-count=review]")).to_have_text("1")
    assert visible_counts(page) == [0, 1, 2]
    expect(page.locator("#rank-policy").get_by_label("Custom")).to_be_checked()
    page.locator("#rank-policy").get_by_label("Strict").check()
    expect(page.locator("#rank-result [data-count=reject]")).to_have_text("3")
    assert watched.urls[before:] == []


def test_blocks_are_separated_by_dashes(page: Page) -> None:
    page.locator("#rank-texts").fill("first line\nsecond line\n---\nanother document")
    rank(page)
    assert len(scores(page)) == 2


def test_texts_and_images_are_paired(page: Page, photos: Path) -> None:
    page.locator("#rank-texts").fill("虎斑猫\n火箭")
    upload(page, photos / "cat.jpg")
    page.locator("#rank-combination").get_by_label("pairs").check()
    page.locator("#rank-submit").click()
    alert = page.locator("#rank-alert").get_by_role("alert")
    expect(alert).to_contain_text("2 texts and 1 images")
    page.locator("#rank-texts").fill("虎斑猫")
    rank(page)
    expect(page.locator("#rank-result .ranking > li")).to_contain_text("image and text")
    expect(alert).to_have_count(0)


def test_what_users_enter_stays_text(page: Page) -> None:
    hostile = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> ${1+1} {{value}}"
    page.locator("#rank-texts").fill(hostile)
    upload(page, {**BROKEN, "name": "<img src=x onerror=alert(1)>.png"})
    rank(page)
    result = page.locator("#rank-result")
    expect(result.locator(".ranking .line")).to_have_text(hostile)
    result.locator(".ranking summary").click()
    expect(result.locator(".detail .text")).to_have_text(hostile)
    assert result.locator("script, img").count() == 0
    assert page.title() == "lychee-rerank"


def test_what_cannot_be_ranked_has_number_name_and_reason_apart(page: Page, watched: Watched) -> None:
    page.locator("#rank-texts").fill("\n".join(TEXTS))
    upload(page, BROKEN)
    rank(page)
    error = page.locator("#rank-result .failed li")
    expect(error.locator(".rank")).to_have_text("no. 4")
    expect(error.locator(".name")).to_have_text("broken.png")
    expect(error.locator(".reason")).to_contain_text("The image cannot be read.")
    expect(error.locator(".no-picture")).to_be_visible()
    boxes = [error.locator(name).bounding_box() for name in (".rank", ".name", ".reason")]
    assert all(boxes)
    assert boxes[0]["x"] + boxes[0]["width"] < boxes[1]["x"]  # type: ignore[index]
    assert boxes[1]["y"] + boxes[1]["height"] <= boxes[2]["y"] + 1  # type: ignore[index]
    page.locator("#rank-texts").fill("")
    rank(page)  # nothing at all can be ranked
    expect(error.locator(".name")).to_have_text("broken.png")
    expect(page.locator("#rank-alert").get_by_role("alert")).to_have_count(0)
    watched.console_errors.clear()  # the browser tells of the status 400


def test_sentences_that_match_are_marked_behind_characters_that_count_twice(page: Page) -> None:
    page.locator("#rank-texts").fill("🐈🐈 Rain falls. A cat sleeps on the mat. The stock market fell.")
    page.locator("#rank-query-text").fill("a cat")
    page.locator("#tab-rank summary", has_text="Options").click()
    page.get_by_label("Show matching sentences").check()
    rank(page)
    page.locator("#rank-result .ranking summary").click()
    expect(page.locator("#rank-result mark", has_text="A cat sleeps on the mat.")).to_have_text(
        "A cat sleeps on the mat."
    )


def test_a_long_text_shows_its_best_chunk(page: Page) -> None:
    page.locator("#rank-texts").fill(f"{'The stock market fell again today. ' * 150}A cat sleeps on the mat.")
    page.locator("#rank-query-text").fill("a cat on a mat")
    page.locator("#tab-rank summary", has_text="Options").click()
    page.get_by_label("Long texts: best chunk").check()
    rank(page)
    page.locator("#rank-result .ranking summary").click()
    expect(page.locator("#rank-result .chunk")).to_contain_text("A cat sleeps on the mat.")
    expect(page.locator("#rank-result .outside").first).to_contain_text("stock market")


def test_the_csv_is_safe_in_a_spreadsheet_and_has_the_decisions_shown(page: Page) -> None:
    texts = ['=HYPERLINK("http://x"),1', "小猫", "-1+1"]
    page.locator("#rank-texts").fill("\n".join(texts))
    rank(page)
    open_policy(page)
    page.locator("#rank-policy").get_by_label("Strict").check()
    with page.expect_download() as caught:
        page.locator("[data-download=csv]").click()
    data = Path(caught.value.path()).read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")
    rows = {int(row["index"]): row for row in csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""))}
    assert [rows[index]["text"] for index in range(3)] == [f"'{texts[0]}", texts[1], f"'{texts[2]}"]
    assert all(
        row["decision"] == ("accept" if float(row["relevance_score"]) >= 0.75 else "reject") for row in rows.values()
    )


def test_the_json_has_scores_thresholds_and_errors(page: Page) -> None:
    page.locator("#rank-texts").fill("\n".join(TEXTS))
    upload(page, BROKEN)
    rank(page)
    with page.expect_download() as caught:
        page.locator("[data-download=json]").click()
    data = json.loads(Path(caught.value.path()).read_text(encoding="utf-8"))
    assert [entry["relevance_score"] for entry in data["results"]] == scores(page)
    assert data["thresholds"] == {"accept": 0.55, "review": 0.55}
    assert [(entry["index"], entry["file"]) for entry in data["errors"]] == [(3, "broken.png")]
    assert data["usage"]["documents"] == 3


def test_ranked_results_lead_to_their_labels(page: Page) -> None:
    page.locator("#rank-texts").fill("\n".join(TEXTS))
    rank(page)
    page.locator("#rank-label").click()
    rows = page.locator("#tab-calibrate .labels li")
    expect(rows).to_have_count(len(TEXTS))
    expect(rows.first).to_contain_text(TEXTS[0])
    expect(rows.first).to_be_focused()
    expect(page.locator("#tab-calibrate .labels h3")).to_have_text(QUERY)


def test_only_the_best_are_shown_on_request(page: Page) -> None:
    page.locator("#rank-texts").fill("\n".join(TEXTS))
    rank(page)
    page.locator("#rank-top-n").fill("2")
    expect(page.locator("#rank-result .ranking > li")).to_have_count(2)


def test_rejected_documents_can_be_hidden(page: Page) -> None:
    page.locator("#rank-texts").fill("\n".join(TEXTS))
    rank(page)
    page.get_by_label("Hide rejected").check()
    expect(page.locator("#rank-result .ranking > li")).to_have_count(1)


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_a_phone_shows_a_ranking_without_scrolling_sideways(
    make_page: MakePage, page_url: str, take_screenshot: Callable[..., Path], color_scheme: str
) -> None:
    page = make_page(viewport=NARROW, color_scheme=color_scheme)
    open_page(page, f"{page_url}/?lang=zh", "rank")
    page.locator("#rank-examples").click()
    expect(page.locator("#rank-result .rank-status")).to_contain_text("27")
    expect(page.locator("#rank-counts")).to_be_in_viewport()
    page.locator("#tab-rank details").evaluate_all("all => all.forEach(each => { each.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == NARROW["width"]
    take_screenshot(page)
