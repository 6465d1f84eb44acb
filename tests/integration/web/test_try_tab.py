"""The tab that scores one pair, in Chromium."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from lychee_client import Image, ImageText, LycheeClient
from playwright.sync_api import Page, expect

from .conftest import NARROW, MakePage, Watched, open_page

pytestmark = pytest.mark.triton

QUERY = "一只猫"
TEXT = "虎斑猫，两岁，性格温顺，等待领养。"
BROKEN = {"name": "<b>broken</b>.jpg", "mimeType": "image/jpeg", "buffer": b"no image"}


def fill_pair(page: Page, photo: Path) -> None:
    page.locator("#try-query-text").fill(QUERY)
    page.locator("#try-document-text").fill(TEXT)
    page.locator("#try-document-image").set_input_files(photo)
    expect(page.locator("#tab-try .thumbnail")).to_be_visible()


def test_a_pair_is_scored_as_the_client_scores_it_and_explained(
    browser_page: Page, client: LycheeClient, photos: Path, take_screenshot: Callable[..., Path]
) -> None:
    fill_pair(browser_page, photos / "cat.jpg")
    browser_page.locator("#try-submit").click()
    result = browser_page.locator("#try-result")
    document = ImageText(Image.from_path(photos / "cat.jpg"), TEXT)
    scores = [client.score(QUERY, variant) for variant in (document, TEXT, document.image)]
    expect(result.locator("output.figure")).to_have_text(f"{scores[0]:.3f}")
    assert result.locator(".why td.number").all_inner_texts() == [f"{score:.3f}" for score in scores]
    expect(result.locator(".headline .badge")).to_have_text("✓ accept", use_inner_text=True)
    expect(result).to_contain_text("451 × 300 → 384 × 256")
    take_screenshot(browser_page)


@pytest.mark.parametrize(
    ("example", "decision"),
    [("photo", "accept"), ("query_photo", "accept"), ("text", "accept"), ("both", "accept"), ("bad", "reject")],
)
def test_one_click_on_an_example_shows_what_it_does(browser_page: Page, example: str, decision: str) -> None:
    browser_page.locator(f"[data-example={example}]").click()
    expect(browser_page.locator("#try-result .headline")).to_have_attribute("data-decision", decision)


def test_another_policy_decides_again_without_a_request(browser_page: Page, watched: Watched) -> None:
    browser_page.locator("#try-query-text").fill(QUERY)
    browser_page.locator("#try-document-text").fill("The cat sleeps on the sofa all day.")  # 0.693
    browser_page.locator("#try-submit").click()
    badge = browser_page.locator("#try-result .headline .badge")
    expect(badge).to_have_text("✓ accept", use_inner_text=True)
    before = len(watched.urls)
    browser_page.locator("#try-policy summary").click()
    browser_page.locator("#try-policy").get_by_label("Strict").check()
    expect(badge).to_have_text("✕ reject", use_inner_text=True)
    assert watched.urls[before:] == []


def test_an_empty_query_is_explained_and_the_explanation_goes_away(browser_page: Page) -> None:
    browser_page.locator("#try-submit").click()
    alert = browser_page.locator("#try-alert").get_by_role("alert")
    expect(alert).to_contain_text("The query is empty")
    browser_page.locator("#try-query-text").fill(QUERY)
    browser_page.locator("#try-document-text").fill(TEXT)
    browser_page.locator("#try-submit").click()
    expect(browser_page.locator("#try-result output.figure")).to_be_visible()
    expect(alert).to_have_count(0)


def test_an_unreadable_image_is_named_beside_a_sign_and_no_old_score(browser_page: Page, watched: Watched) -> None:
    browser_page.locator("[data-example=text]").click()
    expect(browser_page.locator("#try-result output.figure")).to_be_visible()
    browser_page.locator("#try-document-image").set_input_files(BROKEN)
    expect(browser_page.locator("#tab-try fieldset .no-picture")).to_be_visible()
    browser_page.locator("#try-submit").click()
    alert = browser_page.locator("#try-alert").get_by_role("alert")
    expect(alert).to_contain_text("The document's image “<b>broken</b>.jpg”")
    assert alert.locator("b").count() == 0
    assert browser_page.locator("#try-result output.figure, #tab-try fieldset img").count() == 0
    watched.console_errors.clear()  # the browser tells of the status 400


@pytest.mark.filterwarnings("ignore:lychee-mini reads no instruction")  # the gateway's client warns in this process
def test_a_warning_is_shown(browser_page: Page) -> None:
    browser_page.locator("#tab-try summary", has_text="Instruction").click()
    browser_page.locator("#try-instruction").fill("Retrieve only perfect matches")
    browser_page.locator("#try-query-text").fill(QUERY)
    browser_page.locator("#try-document-text").fill(TEXT)
    browser_page.locator("#try-submit").click()
    expect(browser_page.locator("#try-result .warnings")).to_contain_text("reads no instruction")


def test_a_preset_names_the_instruction_until_it_is_edited(browser_page: Page) -> None:
    browser_page.locator("#tab-try summary", has_text="Instruction").click()
    preset, text = browser_page.locator("#try-instruction-preset"), browser_page.locator("#try-instruction")
    preset.select_option("search")
    expect(text).to_have_value("Judge whether the document is relevant to the search query")
    text.press("End")
    text.type("!")
    expect(preset).to_have_value("")
    text.press("Backspace")
    expect(preset).to_have_value("search")


def test_a_pair_is_scored_with_the_keyboard_alone(browser_page: Page) -> None:
    def focus(selector: str) -> None:
        for _ in range(40):
            if browser_page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
            browser_page.keyboard.press("Tab")
        pytest.fail(f"{selector} cannot be reached with the Tab key")

    focus("#try-query-text")
    browser_page.keyboard.type("a yellow flower")
    focus("#try-document-text")
    browser_page.keyboard.type("Dahlias bloom in late summer.")
    browser_page.keyboard.press("Control+Enter")
    expect(browser_page.locator("#try-result output.figure")).to_be_visible()
    expect(browser_page.locator("#try-result").get_by_role("status").first).to_contain_text("Score 0.")
    focus("#try-policy summary")
    browser_page.keyboard.press("Enter")
    focus("#try-policy input[type=range]")
    browser_page.keyboard.press("ArrowRight")
    expect(browser_page.locator("#try-policy summary")).to_contain_text("Custom")
    assert browser_page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_a_lost_server_is_explained(make_page: MakePage, lost_page_url: str) -> None:
    page = make_page()
    open_page(page, lost_page_url)
    page.locator("#try-query-text").fill(QUERY)
    page.locator("#try-document-text").fill(TEXT)
    page.locator("#try-submit").click()
    expect(page.locator("#try-alert").get_by_role("alert")).to_contain_text("lychee load")


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_a_phone_shows_everything_without_scrolling_sideways(
    make_page: MakePage, page_url: str, photos: Path, take_screenshot: Callable[..., Path], color_scheme: str
) -> None:
    page = make_page(viewport=NARROW, color_scheme=color_scheme)
    open_page(page, f"{page_url}/?lang=zh")
    fill_pair(page, photos / "cat.jpg")
    page.locator("#try-submit").click()
    expect(page.locator("#try-result output.figure")).to_be_in_viewport()
    page.locator("#tab-try details").evaluate_all("all => all.forEach(each => { each.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == NARROW["width"]
    take_screenshot(page)
