"""The tab Calibrate in a real browser, on a real model."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lychee_client import Calibration, LycheeClient
from lychee_evaluate.calibration.pair_scores import score_pairs
from lychee_evaluate.calibration.pairs import read_pairs
from lychee_evaluate.calibration.report import make_report
from lychee_evaluate.calibration.threshold_search import parse_target
from playwright.sync_api import Page, expect

from .conftest import NARROW, MakePage, choose_tab, open_page

pytestmark = pytest.mark.triton

FOUND = "#calibrate-result .found"
ALERT = "#calibrate-alert [role=alert]"
QUERIES = {
    "a cat": "kitten",
    "a rocket": "spacecraft",
    "coffee": "espresso",
    "a palace": "royal castle",
    "a car": "truck",
}


@pytest.fixture
def calibrate_page(browser_page: Page) -> Page:
    """Open the tab."""
    choose_tab(browser_page, "calibrate")
    return browser_page


def wait_for_threshold(page: Page) -> None:
    """Wait for a result; the first one of a process imports what computes it."""
    expect(page.locator(FOUND)).to_be_visible(timeout=90_000)


def choose_file(page: Page, name: str, content: bytes) -> None:
    page.locator("#calibrate-file").set_input_files(
        {"name": name, "mimeType": "application/octet-stream", "buffer": content}
    )
    expect(page.locator("#tab-calibrate .file-field")).to_contain_text(name)


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


def download(page: Page, button: str, folder: Path) -> Path:
    """Save what a button offers."""
    with page.expect_download() as caught:
        page.locator(button).click()
    path = folder / caught.value.suggested_filename
    caught.value.save_as(path)
    return path


def label_all(page: Page) -> None:
    """Label two documents of each query with a thumb up and two with a thumb down, by keys alone."""
    page.locator("input[name=calibrate-mode][value=label]").check()
    for number, (query, other) in enumerate(QUERIES.items(), start=1):
        page.locator("#calibrate-query").fill(query)
        page.locator("#calibrate-documents").fill("\n".join([query, other, f"{number} xyz", f"{number} qqq"]))
        page.locator("#calibrate-rank").click()
        expect(page.locator(".labels li")).to_have_count(4 * number)
        expect(page.locator(".labels li").first).to_be_focused()
        for key in ("u", "u", "d", "d"):
            page.keyboard.press(key)
        expect(page.locator(".needed")).to_contain_text(f"{4 * number} of 20 pairs")


def test_uploaded_zip_gives_the_commands_calibration_and_both_downloads(
    calibrate_page: Page, client: LycheeClient, root: Path, tmp_path: Path, take_screenshot: Callable[..., Path]
) -> None:
    page = calibrate_page
    choose_file(page, "pairs.zip", zip_example(root))
    page.locator("#calibrate-target").select_option("")
    page.locator("#calibrate-own-target").fill("recall>=0.9")
    page.locator("#calibrate-run").click()
    wait_for_threshold(page)
    take_screenshot(page)

    found = Calibration.load(download(page, "#calibrate-save", tmp_path))
    picture = download(page, "#calibrate-save-picture", tmp_path).read_text(encoding="utf-8")
    assert picture.startswith("<svg")
    assert "relevance score" in picture
    sheet = read_pairs(root / "examples" / "calibration" / "pairs.csv", labelled=True)
    expected = make_report(score_pairs(client, sheet.pairs), parse_target("recall>=0.9")).calibration
    assert (found.target, found.pairs, found.data_sha256) == ("recall>=0.9", 112, expected.data_sha256)
    assert found.model == expected.model
    # The gateway's cache of embeddings scores with other batches than the client does.
    assert found.threshold == pytest.approx(expected.threshold, abs=1e-4)
    assert (found.precision, found.recall) == (expected.precision, expected.recall)
    assert f"{found.threshold:.4f}" in page.locator(FOUND).inner_text()


def test_example_needs_one_click_and_curves_follow_the_language(
    calibrate_page: Page, take_screenshot: Callable[..., Path]
) -> None:
    page = calibrate_page
    page.locator("#calibrate-example").click()
    wait_for_threshold(page)
    expect(page.locator(".chart")).to_contain_text("relevance score")
    page.locator("#language").select_option("zh")
    expect(page.locator(FOUND)).to_contain_text("推荐阈值")
    expect(page.locator(".chart")).to_contain_text("相关性分数")
    expect(page.locator(".legend")).to_contain_text("精确率")
    expect(page.locator(".readout")).to_contain_text("阈值")
    assert not re.search("precision|recall|score", page.locator(".curve").inner_text(), re.IGNORECASE)
    page.set_viewport_size(NARROW)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    take_screenshot(page, "narrow zh")


def test_curves_are_read_with_the_keyboard(calibrate_page: Page) -> None:
    page = calibrate_page
    page.locator("#calibrate-example").focus()
    page.keyboard.press("Enter")
    wait_for_threshold(page)
    chart = page.locator(".chart")
    chart.focus()
    page.keyboard.press("Home")
    expect(chart).to_have_attribute("aria-valuetext", re.compile(r"From 0\.000 on: .*recall 1\.000.*; 112 pairs"))
    page.keyboard.press("ArrowRight")
    expect(chart).to_have_attribute("aria-valuenow", "0.010")
    page.keyboard.press("End")
    expect(page.locator(".readout")).to_contain_text("From 1.000 on")
    page.keyboard.press("Escape")
    threshold = float(page.locator(f"{FOUND} .big").inner_text())
    assert float(chart.get_attribute("aria-valuenow") or 0) == pytest.approx(threshold, abs=6e-4)


def test_missing_file_wrong_target_and_too_few_pairs_are_told(calibrate_page: Page) -> None:
    page = calibrate_page
    page.locator("#calibrate-run").click()
    expect(page.locator(ALERT)).to_contain_text("Choose a file")
    choose_file(page, "few.csv", b"query,text,image,relevant\nq,a,,1\nq,,/etc/passwd,1\n")
    page.locator("#calibrate-run").click()
    expect(page.locator(ALERT)).to_contain_text("1 usable pairs are too few")
    expect(page.locator("#calibrate-alert .reasons")).to_contain_text("'/etc/passwd' did not come with the table")
    page.locator("#calibrate-target").select_option("")
    page.locator("#calibrate-own-target").fill("precision>=7")
    page.locator("#calibrate-run").click()
    expect(page.locator(ALERT)).to_contain_text("The target cannot be read")
    page.locator("#language").select_option("zh")
    expect(page.locator(ALERT)).to_contain_text("无法识别目标")


def test_damaged_photo_is_told_with_its_rows_and_costs_only_them(calibrate_page: Page, root: Path) -> None:
    page = calibrate_page
    choose_file(page, "pairs.zip", zip_example(root, broken="cat.jpg"))
    page.locator("#calibrate-run").click()
    wait_for_threshold(page)
    page.locator(".skipped summary").click()
    expect(page.locator(".skipped .reasons")).to_contain_text("not a readable image")


def test_running_job_can_be_cancelled_and_another_one_started(calibrate_page: Page) -> None:
    page = calibrate_page
    rows = [{"query": f"query {n}", "text": f"text {n} {m}", "relevant": m % 2} for n in range(200) for m in range(20)]
    choose_file(page, "many.jsonl", "\n".join(json.dumps(row) for row in rows).encode())
    page.locator("#calibrate-run").click()
    expect(page.locator("#calibrate-job .counts")).to_contain_text("of 4000")
    page.locator("#calibrate-job button").click()
    expect(page.locator("#calibrate-alert")).to_contain_text("Cancelled")
    page.locator("#calibrate-example").click()
    wait_for_threshold(page)


def test_texts_of_the_table_are_shown_and_not_run(calibrate_page: Page) -> None:
    page = calibrate_page
    page.evaluate("window.attacked = false")
    attack = "<img src=x onerror='window.attacked=true'>${window.attacked=true}{{attacked}}"
    choose_file(page, "few.csv", f'query,text,relevant\nq,a,"{attack}"\n'.encode())
    page.locator("#calibrate-run").click()
    expect(page.locator("#calibrate-alert .reasons")).to_contain_text("${window.attacked=true}{{attacked}}")
    assert page.evaluate("window.attacked") is False


def test_result_is_there_after_a_reload(calibrate_page: Page) -> None:
    page = calibrate_page
    page.locator("#calibrate-example").click()
    wait_for_threshold(page)
    before = page.locator(FOUND).inner_text()
    page.wait_for_timeout(1000)  # what is kept is written a moment later
    page.reload()
    expect(page.locator(FOUND)).to_have_text(before, use_inner_text=True)


def test_lost_triton_is_told(make_page: MakePage, lost_page_url: str) -> None:
    page = make_page()
    open_page(page, lost_page_url, "calibrate")
    page.locator("#calibrate-example").click()
    expect(page.locator(ALERT)).to_contain_text("The model server is not there")


def test_labels_by_keys_become_a_sheet_and_a_threshold(
    calibrate_page: Page, client: LycheeClient, tmp_path: Path, take_screenshot: Callable[..., Path]
) -> None:
    page = calibrate_page
    page.locator("input[name=calibrate-mode][value=label]").check()
    page.locator("#calibrate-run").click()
    expect(page.locator(ALERT)).to_contain_text("Label more first: at least 20 pairs of 5 queries")
    label_all(page)
    take_screenshot(page, "labelled")
    page.reload()
    choose_tab(page, "calibrate")
    expect(page.locator(".labels li[data-label=relevant]")).to_have_count(10)

    sheet = read_pairs(download(page, "#calibrate-export", tmp_path), labelled=True)
    assert sheet.skipped == ()
    assert len(sheet.pairs) == 20
    assert {pair.query for pair in sheet.pairs} == set(QUERIES)
    ranked = {
        query: client.rerank(query, [query, other, f"{number} xyz", f"{number} qqq"]).results
        for number, (query, other) in enumerate(QUERIES.items(), start=1)
    }
    for number, (query, other) in enumerate(QUERIES.items(), start=1):
        texts = [query, other, f"{number} xyz", f"{number} qqq"]
        best = {texts[result.index] for result in ranked[query][:2]}
        assert {pair.text for pair in sheet.pairs if pair.query == query and pair.relevant} == best

    page.locator("input[name=calibrate-mode][value=label]").check()
    page.locator("#calibrate-run").click()
    wait_for_threshold(page)
    expect(page.locator("#calibrate-result")).to_contain_text("10 relevant, of 5 queries")


def test_label_is_taken_back_by_the_same_key(calibrate_page: Page) -> None:
    page = calibrate_page
    page.locator("input[name=calibrate-mode][value=label]").check()
    page.locator("#calibrate-query").fill("a cat")
    page.locator("#calibrate-documents").fill("kitten\n=1+1")
    page.locator("#calibrate-rank").click()
    first = page.locator(".labels li").first
    expect(first).to_be_focused()
    page.keyboard.press("u")
    expect(first.locator("button").first).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("k")
    page.keyboard.press("u")
    expect(first).to_have_attribute("data-label", "")
    first.locator("button").nth(1).click()
    expect(page.locator(".needed")).to_contain_text("1 of 5 not relevant")


def test_exported_sheet_is_safe_in_a_spreadsheet(calibrate_page: Page, tmp_path: Path) -> None:
    page = calibrate_page
    page.locator("input[name=calibrate-mode][value=label]").check()
    page.locator("#calibrate-query").fill("=cmd()")
    page.locator("#calibrate-documents").fill('a "quoted", text')
    page.locator("#calibrate-rank").click()
    expect(page.locator(".labels li").first).to_be_focused()
    page.keyboard.press("u")
    content = download(page, "#calibrate-export", tmp_path).read_bytes()
    assert content.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))
    assert rows == [
        {"query": "'=cmd()", "query_image": "", "text": 'a "quoted", text', "image": "", "relevant": "1"},
    ]
    assert read_pairs(tmp_path / "sheet.csv", labelled=True).pairs[0].query == "=cmd()"


def test_ranking_of_another_tab_comes_with_its_documents(calibrate_page: Page) -> None:
    page = calibrate_page
    ranking = {
        "query": {"text": "a cat"},
        "documents": [{"text": "dog"}, {"text": "kitten"}],
        "results": [{"index": 1}],
    }
    page.evaluate(
        "async (ranking) => (await import(`${document.baseURI}page/shell/app.js`)).openTab('calibrate', { ranking })",
        ranking,
    )
    expect(page.locator(".labels li")).to_have_text(["kitten"])


def test_threshold_is_used_in_the_page_and_in_the_gateway(
    calibrate_page: Page, page_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LYCHEE_STATE_DIR", str(tmp_path))
    page = calibrate_page

    def ask(path: str) -> Any:
        return page.request.get(f"{page_url}/{path}").json()

    expect(page.locator("#use-gateway")).to_be_disabled()
    page.locator("#calibrate-example").click()
    wait_for_threshold(page)
    page.locator("#use-page").click()
    expect(page.locator(".use .done")).to_contain_text("Calibrated here")
    choose_tab(page, "batch")
    expect(page.locator("#tab-batch .radios")).to_contain_text("Calibrated here")
    choose_tab(page, "calibrate")
    try:
        page.locator("#use-gateway").click()
        expect(page.locator(".use .done")).to_contain_text("decides every call that names no policy")
        expect(page.locator(".use")).to_contain_text("a calibration decides now")
        threshold = ask("v1/calibration")["accept"]
        assert f"{threshold:.4f}" in page.locator(FOUND).inner_text()
        assert ask("v1/settings")["default_policy"] == "calibration"
        expect(page.locator("#tab-batch input[value=calibration]")).to_be_checked()
        page.locator("#use-gateway-undo").click()
        expect(page.locator(".use")).to_contain_text("Balanced decides now")
    finally:
        page.request.delete(f"{page_url}/v1/calibration")
    choose_tab(page, "compare")
    offered = page.locator("#compare-a input[value=calibrated_here]")
    offered.check()
    expect(page.locator("#compare-a-policy-accept ~ output")).to_have_text(f"{threshold:.2f}")
    expect(page.locator("#compare-a")).to_contain_text("Calibrated here")
