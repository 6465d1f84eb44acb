"""The tab Compare in a real browser, on a real model."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lychee_client import LycheeClient
from playwright.sync_api import Page, expect
from scipy.stats import kendalltau

from .conftest import NARROW, choose_tab

pytestmark = pytest.mark.triton

QUERY = "a cat"
TEXTS = ["The cat sleeps on the sofa all day.", "a cup of coffee", "a kitten", "a rocket"]
ROWS = "#compare-result tbody tr"
ALERT = "#compare-alert [role=alert]"


@pytest.fixture
def compare_page(browser_page: Page) -> Page:
    """Open the tab."""
    choose_tab(browser_page, "compare")
    return browser_page


def fill_call(page: Page) -> None:
    page.locator("#compare-query").fill(QUERY)
    page.locator("#compare-documents").fill("\n".join(TEXTS))


def choose_saved(page: Page, variant: str, saved: Any, name: str = "ranking.json") -> None:
    page.locator(f"#compare-{variant}-source").select_option("saved")
    content = saved if isinstance(saved, bytes) else json.dumps(saved).encode()
    page.locator(f"#compare-{variant}-file").set_input_files(
        {"name": name, "mimeType": "application/json", "buffer": content}
    )


def saved_ranking(scores: dict[str, float], model: str = "other-model") -> dict[str, Any]:
    results = [
        {"index": index, "relevance_score": score, "text": text} for index, (text, score) in enumerate(scores.items())
    ]
    return {"model": model, "results": results}


def test_two_policies_share_the_scores_and_mark_what_they_decide_otherwise(
    compare_page: Page, client: LycheeClient, take_screenshot: Callable[..., Path]
) -> None:
    page = compare_page
    fill_call(page)
    expected = client.rerank(QUERY, TEXTS).results
    between = (expected[0].relevance_score + expected[1].relevance_score) / 2
    page.locator("#compare-a input[value=exploratory]").check()
    page.locator("#compare-b-policy-accept").fill(f"{between:.2f}")
    page.locator("#compare-run").click()
    expect(page.locator("#compare-tau")).to_have_text("Kendall's tau-b: 1.000")
    shown = page.locator(f"{ROWS} td:nth-child(3)").all_inner_texts()
    assert [float(text) for text in shown] == pytest.approx([each.relevance_score for each in expected], abs=1e-3)
    assert page.locator(f"{ROWS} td:nth-child(6)").all_inner_texts() == shown
    expect(page.locator("#compare-result")).to_contain_text("0 of 4 documents changed their rank")
    first = page.locator(ROWS).first
    expect(first).to_contain_text("accept")
    changed = page.locator("#compare-result tr.changed")
    expect(changed.first).to_contain_text("The decision changed")
    take_screenshot(page)
    page.locator("#compare-b input[value=exploratory]").check()  # decides anew, without another call
    expect(page.locator("#compare-result")).to_contain_text("No decision changed")


def test_ranking_of_another_model_is_aligned_by_document(compare_page: Page, tmp_path: Path) -> None:
    page = compare_page
    fill_call(page)
    scores = dict(zip(TEXTS, (0.1, 0.9, 0.3, 0.2), strict=True))
    choose_saved(page, "b", saved_ranking({**scores, "not in the other one": 0.5}))
    page.locator("#compare-run").click()
    coffee = page.locator(ROWS).filter(has_text="a cup of coffee")
    expect(coffee).to_contain_text("0.900")
    expect(coffee.locator(".up")).to_be_visible()
    expect(page.locator(ROWS).filter(has_text="not in the other one")).to_contain_text("in one of them only")
    expect(page.locator("#compare-result")).to_contain_text("B: other-model")
    page.locator("#compare-order").select_option("b")
    expect(page.locator(ROWS).first).to_contain_text("a cup of coffee")
    with page.expect_download() as caught:
        page.locator("#compare-save").click()
    caught.value.save_as(tmp_path / "comparison.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "comparison.csv").read_text(encoding="utf-8-sig"))))
    assert len(rows) == 5
    assert next(row for row in rows if row["document"] == "a cup of coffee")["rank_b"] == "1"


def test_tau_is_that_of_scipy_also_with_ties(compare_page: Page) -> None:
    page = compare_page
    draw = random.Random(16)
    texts = [f"text {number}" for number in range(60)]
    one, other = ([draw.randrange(20) / 20 for _ in texts] for _ in range(2))
    choose_saved(page, "a", saved_ranking(dict(zip(texts, one, strict=True))))
    choose_saved(page, "b", saved_ranking(dict(zip(texts, other, strict=True))))
    page.locator("#compare-run").click()
    expected = kendalltau(one, other).statistic
    expect(page.locator("#compare-tau")).to_have_text(f"Kendall's tau-b: {expected:.3f}")
    expect(page.locator(ROWS)).to_have_count(50)
    page.locator("#compare-result button").filter(has_text="Show 10 more").click()
    expect(page.locator(ROWS)).to_have_count(60)


def test_rankings_of_the_history_can_be_compared(compare_page: Page) -> None:
    page = compare_page
    page.locator("#compare-a-source").select_option("past")
    expect(page.locator("#compare-a")).to_contain_text("The history holds no ranking yet")
    page.locator("#choose-rank").click()
    page.locator("#rank-query-text").fill(QUERY)
    page.locator("#rank-texts").fill("\n".join(TEXTS))
    page.locator("#rank-submit").click()
    expect(page.locator("#rank-result .ranking li")).to_have_count(4)
    choose_tab(page, "compare")
    fill_call(page)
    page.locator("#compare-a-source").select_option("now")
    page.locator("#compare-a-source").select_option("past")
    expect(page.locator("#compare-a-past option")).to_have_count(1)
    page.locator("#compare-run").click()
    expect(page.locator("#compare-tau")).to_have_text("Kendall's tau-b: 1.000")


def test_what_cannot_be_compared_is_told(compare_page: Page) -> None:
    page = compare_page
    page.locator("#compare-run").click()
    expect(page.locator(ALERT)).to_contain_text("Enter a query and at least two documents")
    fill_call(page)
    page.locator("#compare-b-source").select_option("saved")
    page.locator("#compare-run").click()
    expect(page.locator(ALERT)).to_contain_text("Choose the saved ranking of variant B first")
    for content in (b"{", b'{"results": []}', b'{"results": [{"index": 1}]}', b"3"):
        choose_saved(page, "b", content)
        page.locator("#compare-run").click()
        expect(page.locator(ALERT)).to_contain_text("ranking.json holds no ranking")
    choose_saved(page, "b", saved_ranking({"<img src=x onerror=alert(1)>": 0.5}))
    page.locator("#compare-run").click()
    expect(page.locator(ALERT)).to_contain_text("no document in common")
    page.locator("#language").select_option("zh")
    expect(page.locator(ALERT)).to_contain_text("没有共同的文档")


def test_example_is_one_click_and_fits_a_phone(compare_page: Page, take_screenshot: Callable[..., Path]) -> None:
    page = compare_page
    page.set_viewport_size(NARROW)
    page.locator("#compare-example").click()
    expect(page.locator("#compare-tau")).to_be_visible()
    expect(page.locator("#compare-result tr.changed").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    take_screenshot(page)
