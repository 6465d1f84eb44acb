"""The tab Batch in a real browser, on a real model."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lychee_client import LycheeClient
from playwright.sync_api import Page, Route, expect

from .conftest import NARROW, MakePage, choose_tab, open_page

pytestmark = pytest.mark.triton

STATE = "#batch-state"
ROWS = "#tab-batch tbody tr"
COLUMNS = [
    {"name": "question", "meaning": "query"},
    {"name": "=note", "meaning": None},
    {"name": "answer", "meaning": "text"},
]


@pytest.fixture
def batch_page(make_page: MakePage, page_url: str) -> Iterator[Page]:
    """Open the tab; no error of a script may have come at the end, while those of refused calls are wanted here."""
    page = make_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    open_page(page, page_url, "batch")
    yield page
    assert errors == []


def upload(page: Page, rows: list[list[str | None]], **more: Any) -> None:
    """Choose a file that the gateway reads as these rows."""
    table = {"columns": COLUMNS, "rows": rows, "notes": [], **more}
    page.route("**/v1/tables?*", lambda route: route.fulfill(json=table))
    page.locator("#batch-file").set_input_files({"name": "table.csv", "mimeType": "text/csv", "buffer": b"content"})
    expect(page.locator(ROWS)).to_have_count(min(50, len(rows) + len(more.get("problems", []))))


def wait_for_end(page: Page) -> None:
    expect(page.locator(STATE)).to_contain_text("Done", timeout=120_000)


def save(page: Page) -> tuple[bytes, list[dict[str, str]]]:
    with page.expect_download() as caught:
        page.locator("#batch-save").click()
    assert caught.value.suggested_filename == "table-scored.csv"
    content = Path(caught.value.path()).read_bytes()
    return content, list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))


def test_scores_ranks_and_decisions_stand_beside_the_columns(
    batch_page: Page, client: LycheeClient, take_screenshot: Callable[..., Path]
) -> None:
    page = batch_page
    texts = ["a kitten", "a cup of coffee", "The cat sleeps on the sofa all day."]
    rows: list[list[str | None]] = [[query, "=1+1", text] for query in ("a cat", "espresso") for text in texts]
    upload(page, rows)
    expect(page.locator("#batch-query")).to_have_value("0")
    expect(page.locator("#batch-document")).to_have_value("2")
    page.locator("#batch-start").click()
    wait_for_end(page)
    take_screenshot(page)
    content, saved = save(page)
    assert content.startswith(b"\xef\xbb\xbf")
    assert list(saved[0]) == ["question", "'=note", "answer", "relevance_score", "rank", "decision", "error"]
    assert {row["'=note"] for row in saved} == {"'=1+1"}
    for query in ("a cat", "espresso"):
        own = [row for row in saved if row["question"] == query]
        expected = client.rerank(query, texts)
        for rank, result in enumerate(expected.results, start=1):
            row = own[result.index]
            assert float(row["relevance_score"]) == pytest.approx(result.relevance_score, abs=1e-4)
            assert (row["rank"], row["decision"]) == (str(rank), result.decision)


def test_rows_that_cannot_be_scored_are_error_rows(batch_page: Page) -> None:
    page = batch_page
    message = {"en": "It has 9 cells.", "zh": "它有 9 个单元格。"}
    problems = [{"row": 4, "kind": "cells", "values": {}, "message": message}]
    rows: list[list[str | None]] = [["a cat", None, "a kitten"], ["", None, "x"], ["a cat", None, " "]]
    upload(page, rows, row_numbers=[2, 3, 5], problems=problems)
    page.locator("#batch-start").click()
    wait_for_end(page)
    expect(page.locator(STATE)).to_contain_text("4 rows, 3 of them with an error")
    expect(page.locator(ROWS).nth(1)).to_contain_text("It has no query.")
    expect(page.locator(ROWS).nth(2)).to_contain_text("It has 9 cells.")
    expect(page.locator(ROWS).nth(3)).to_contain_text("It has no document.")
    page.locator("#language").select_option("zh")
    expect(page.locator(ROWS).nth(2)).to_contain_text("它有 9 个单元格。")
    _, saved = save(page)
    assert [row["decision"] for row in saved][1:] == ["error"] * 3


def test_one_query_for_all_rows(batch_page: Page) -> None:
    page = batch_page
    upload(page, [[None, None, "a kitten"], [None, None, "a rocket"]])
    page.locator("#batch-query").select_option("")
    page.locator("#batch-start").click()
    expect(page.locator("#batch-alert")).to_contain_text("Enter the query for all rows")
    page.locator("#batch-query-text").fill("a cat")
    page.locator("#batch-start").click()
    wait_for_end(page)
    expect(page.locator(f"{ROWS} td:nth-child(2)").first).to_have_text(re.compile(r"^[01]\.\d{3}$"))
    expect(page.locator(f"{ROWS} td:nth-child(3)")).to_have_text(["1", "2"])


def test_paused_work_goes_on_after_a_reload_without_scoring_twice(batch_page: Page) -> None:
    page = batch_page
    sent: list[int] = []
    held: list[Route] = []

    def watch(route: Route) -> None:
        if len(sent) >= 3 and not held:
            held.append(route)  # never answered: pausing gives it up
            return
        sent.append(len(route.request.post_data_json["documents"]))
        route.continue_()

    page.route("**/v1/rerank", watch)
    rows: list[list[str | None]] = [[f"query {number % 10}", None, f"text {number}"] for number in range(1000)]
    upload(page, rows)
    page.locator("#batch-start").click()
    expect(page.locator(STATE)).to_contain_text(re.compile(r"\d+ of 1,000 rows"))
    page.locator("#batch-pause").click()
    expect(page.locator(STATE)).to_contain_text("Paused at")
    page.reload()
    choose_tab(page, "batch")
    expect(page.locator(STATE)).to_contain_text("Paused at")
    done = int((re.search(r"Paused at ([\d,]+)", page.locator(STATE).inner_text()) or [""] * 2)[1].replace(",", ""))
    held.append(held[0] if held else None)  # type: ignore[arg-type]
    before = len(sent)
    page.locator("#batch-resume").click()
    wait_for_end(page)
    assert sum(sent[before:]) == 1000 - done
    assert page.locator(ROWS).count() == 50
    _, saved = save(page)
    assert len(saved) == 1000
    assert all(row["relevance_score"] for row in saved)


def test_thousands_of_rows_leave_the_page_small_and_can_be_cancelled(batch_page: Page) -> None:
    page = batch_page
    rows: list[list[str | None]] = [[f"query {number % 50}", None, f"text {number}"] for number in range(15_000)]
    upload(page, rows)
    expect(page.locator("#tab-batch")).to_contain_text("15,000 rows")
    page.locator("#batch-start").click()
    expect(page.locator(STATE)).to_contain_text("left")
    page.locator("#tab-batch button").filter(has_text="Show 500 more").click()
    expect(page.locator(ROWS)).to_have_count(550)
    page.locator("#batch-cancel").click()
    expect(page.locator("#batch-cancel")).to_be_hidden()
    expect(page.locator(STATE)).to_be_empty()


def test_lost_gateway_pauses_the_work(batch_page: Page) -> None:
    page = batch_page
    page.clock.install()  # so that nobody waits for what the page waits between its tries
    page.route("**/v1/rerank", lambda route: route.abort())
    upload(page, [["a cat", None, "a kitten"]])
    page.locator("#batch-start").click()
    for _ in range(5):
        page.clock.run_for(6000)
    expect(page.locator("#batch-alert")).to_contain_text("the work is paused")
    expect(page.locator("#batch-resume")).to_be_visible()
    page.unroute("**/v1/rerank")
    page.clock.resume()
    page.locator("#batch-resume").click()
    wait_for_end(page)


def test_file_as_excel_in_china_writes_it_is_read_by_the_gateway(batch_page: Page) -> None:
    page = batch_page
    content = "查询;文档;备注\r\n一只猫;小猫在睡觉;甲\r\n一只猫;火箭发射升空;乙\r\n".encode("gb18030")
    page.locator("#batch-file").set_input_files({"name": "表.csv", "mimeType": "text/csv", "buffer": content})
    expect(page.locator(ROWS)).to_have_count(2)
    expect(page.locator("#batch-query option:checked")).to_have_text("查询")
    expect(page.locator("#batch-document option:checked")).to_have_text("文档")
    expect(page.locator("#tab-batch")).to_contain_text("GB18030")
    page.locator("#batch-start").click()
    wait_for_end(page)
    expect(page.locator(f"{ROWS} td:nth-child(3)")).to_have_text(["1", "2"])


def test_table_that_cannot_be_read_is_told_in_the_readers_language(batch_page: Page) -> None:
    page = batch_page
    message = {"en": "It holds two sheets.", "zh": "它有两个工作表。"}
    body = {
        "message": "two sheets",
        "type": "invalid_table",
        "errors": [{"kind": "x", "values": {}, "message": message}],
    }
    page.route("**/v1/tables?*", lambda route: route.fulfill(status=400, json=body))
    page.locator("#batch-file").set_input_files({"name": "t.xlsx", "mimeType": "a/b", "buffer": b"content"})
    expect(page.locator("#batch-alert")).to_contain_text("It holds two sheets.")
    page.locator("#language").select_option("zh")
    expect(page.locator("#batch-alert")).to_contain_text("它有两个工作表。")


def test_tab_fits_a_phone(batch_page: Page, take_screenshot: Callable[..., Path]) -> None:
    page = batch_page
    page.set_viewport_size(NARROW)
    upload(page, [["a cat", "note " * 20, "a kitten " * 40]])
    page.locator("#batch-start").click()
    wait_for_end(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    take_screenshot(page)


def test_an_example_table_is_scored_by_one_click(batch_page: Page) -> None:
    batch_page.locator("#batch-example").click()
    wait_for_end(batch_page)
    expect(batch_page.locator(STATE)).to_contain_text("102 rows, 0 of them with an error")
    expect(batch_page.locator(ROWS).first).to_contain_text("accept")
