"""The tab Calibrate in a real browser, on a real model."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from lychee_client import Calibration, LycheeClient
from lychee_evaluate.calibration.pair_scores import score_pairs
from lychee_evaluate.calibration.pairs import read_pairs
from lychee_evaluate.calibration.report import make_report
from lychee_evaluate.calibration.threshold_search import parse_target
from playwright.sync_api import Page, expect

from .conftest import NARROW, choose_tab

pytestmark = pytest.mark.triton

VERDICT = "#calibrate-result .verdict"
ALERT = "#calibrate-alert [role=alert]"


@pytest.fixture
def calibrate_page(browser_page: Page) -> Page:
    """Open the tab."""
    choose_tab(browser_page, "calibrate")
    return browser_page


def wait_for_verdict(page: Page) -> None:
    """Wait for a result; the first one of a process imports what draws and computes it."""
    expect(page.locator(VERDICT)).to_be_visible(timeout=90_000)


def choose_file(page: Page, name: str, content: bytes) -> None:
    """Upload a file and wait until it is there."""
    page.locator("#calibrate-file input[type=file]").set_input_files(
        {"name": name, "mimeType": "application/octet-stream", "buffer": content}
    )
    expect(page.locator("#calibrate-file .file-preview")).to_contain_text(name.rpartition(".")[0])


def zip_example(root: Path, *, broken: str = "") -> bytes:
    """Return the example pairs with their photos as users would pack them; `broken` names a photo to damage."""
    examples = root / "examples"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(examples / "calibration" / "pairs.csv", "calibration/pairs.csv")
        for photo in sorted((examples / "catalogue" / "photos").glob("*.jpg")):
            content = b"no image" if photo.name == broken else photo.read_bytes()
            archive.writestr(f"catalogue/photos/{photo.name}", content)
    return buffer.getvalue()


def download(page: Page, name: str, folder: Path) -> Path:
    """Save what a link of the result offers."""
    with page.expect_download() as caught:
        page.locator(f'#calibrate-result a[download="{name}"]').click()
    assert caught.value.suggested_filename == name
    caught.value.save_as(folder / name)
    return folder / name


def test_uploaded_zip_gives_the_commands_calibration_and_both_downloads(
    calibrate_page: Page,
    client: LycheeClient,
    root: Path,
    tmp_path: Path,
    take_screenshot: Callable[..., Path],
) -> None:
    page = calibrate_page
    choose_file(page, "pairs.zip", zip_example(root))
    page.locator("#calibrate-target input").fill("recall>=0.9")
    page.locator("#calibrate-target input").press("Enter")
    page.locator("#calibrate-run").click()
    wait_for_verdict(page)
    take_screenshot(page)

    found = Calibration.load(download(page, "calibration.json", tmp_path))
    assert download(page, "calibration.png", tmp_path).read_bytes().startswith(b"\x89PNG")
    sheet = read_pairs(root / "examples" / "calibration" / "pairs.csv", labelled=True)
    expected = make_report(score_pairs(client, sheet.pairs), parse_target("recall>=0.9")).calibration
    assert (found.target, found.pairs, found.data_sha256) == ("recall>=0.9", 112, expected.data_sha256)
    assert found.model == expected.model
    # The gateway's cache of embeddings scores with other batches than the client does.
    assert found.threshold == pytest.approx(expected.threshold, abs=1e-4)
    assert (found.precision, found.recall) == (expected.precision, expected.recall)
    assert f"{found.threshold:.4f}" in page.locator(VERDICT).inner_text()


def test_example_pairs_need_one_click_and_the_result_survives_a_change_of_language(
    calibrate_page: Page, take_screenshot: Callable[..., Path]
) -> None:
    page = calibrate_page
    page.locator("#calibrate-example").click()
    wait_for_verdict(page)
    expect(page.locator(VERDICT).get_by_text("Recommended threshold")).to_be_visible()
    page.locator("#language").get_by_text("中文").click()
    expect(page.locator(VERDICT).get_by_text("推荐阈值")).to_be_visible()
    expect(page.locator(VERDICT).get_by_text("Recommended threshold")).to_be_hidden()
    expect(page.locator("#calibrate-run")).to_contain_text("计算阈值")
    page.set_viewport_size(NARROW)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    take_screenshot(page, "narrow zh")


def test_missing_file_wrong_file_and_too_few_pairs_are_told(calibrate_page: Page) -> None:
    page = calibrate_page
    page.locator("#calibrate-run").click()
    expect(page.locator(ALERT)).to_contain_text("Choose a file")
    choose_file(page, "few.csv", b"query,text,image,relevant\nq,a,,1\nq,,/etc/passwd,1\n")
    page.locator("#calibrate-run").click()
    expect(page.locator(ALERT)).to_contain_text("1 usable pairs are too few")
    reasons = page.locator("#calibrate-alert .reasons")
    expect(reasons).to_contain_text("3")
    expect(reasons).to_contain_text("'/etc/passwd' did not come with the table")


def test_damaged_photo_is_told_with_its_rows_and_costs_only_them(calibrate_page: Page, root: Path) -> None:
    page = calibrate_page
    choose_file(page, "pairs.zip", zip_example(root, broken="cat.jpg"))
    page.locator("#calibrate-run").click()
    wait_for_verdict(page)
    skipped = page.locator("#calibrate-result .skipped")
    skipped.locator("summary").click()
    expect(skipped.locator(".reasons")).to_contain_text("not a readable image")


def test_running_job_can_be_cancelled_and_another_one_started(calibrate_page: Page) -> None:
    page = calibrate_page
    rows = [{"query": f"query {n}", "text": f"text {n} {m}", "relevant": m % 2} for n in range(200) for m in range(20)]
    choose_file(page, "many.jsonl", "\n".join(json.dumps(row) for row in rows).encode())
    page.locator("#calibrate-run").click()
    expect(page.locator("#calibrate-result .job")).to_contain_text("of 4000 pairs scored")
    page.locator("#calibrate-cancel").click()
    expect(page.locator("#calibrate-result")).to_contain_text("Cancelled")
    expect(page.locator("#calibrate-cancel")).to_be_hidden()
    page.locator("#calibrate-example").click()
    wait_for_verdict(page)


def test_keyboard_alone_is_enough(calibrate_page: Page) -> None:
    page = calibrate_page
    page.locator("#calibrate-run").focus()
    page.keyboard.press("Tab")
    expect(page.locator("#calibrate-example")).to_be_focused()
    page.keyboard.press("Enter")
    wait_for_verdict(page)
    expect(page.locator("#calibrate-example")).to_be_focused()


def test_texts_of_the_table_are_shown_and_not_run(calibrate_page: Page) -> None:
    page = calibrate_page
    page.evaluate("window.attacked = false")
    attack = "<img src=x onerror='window.attacked=true'>${window.attacked=true}{{attacked}}"
    choose_file(page, "few.csv", f'query,text,relevant\nq,a,"{attack}"\n'.encode())
    page.locator("#calibrate-run").click()
    expect(page.locator("#calibrate-alert .reasons")).to_contain_text("${window.attacked=true}{{attacked}}")
    assert page.evaluate("window.attacked") is False


def test_lost_triton_is_told(make_page: Callable[..., Page], lost_page_url: str) -> None:
    page = make_page()
    page.goto(lost_page_url)
    expect(page.locator("#score-submit")).to_be_visible()
    choose_tab(page, "calibrate")
    page.locator("#calibrate-example").click()
    expect(page.locator(ALERT)).to_be_visible()
