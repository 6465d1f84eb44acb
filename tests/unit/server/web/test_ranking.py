"""The page's ranking in pieces (shell/ranking.js), in Node, with a gateway that is a function."""

from __future__ import annotations

import json
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

SITE = Path(str(resources.files("lychee_server.web").joinpath("site")))

# A gateway that scores a text by its length, takes at most MOST documents, and cannot rank what begins with "bad".
GATEWAY = """
const calls = [];
globalThis.fetch = async (path, { body }) => {
  const { documents } = JSON.parse(body);
  calls.push(documents.length);
  const json = (status, value) => new Response(JSON.stringify(value), { status });
  if (documents.length > MOST) return json(400, { message: "too many", type: "invalid_request", param: "documents" });
  const errors = documents.flatMap((text, index) =>
    text.startsWith("bad") ? [{ index, message: "bad", type: "x" }] : []);
  if (errors.length === documents.length) return json(400, { message: "none", type: "invalid_input", errors });
  const results = documents.flatMap((text, index) => text.startsWith("bad") ? [] : [{
    index, logit: text.length, relevance_score: 0.5, decision: "accept" }]);
  return json(200, { model: "m", query: { tokens: 1 }, warnings: ["w"], errors,
    results: [...results, ...errors.map((each) => ({ ...each, decision: "error" }))],
    usage: { total_tokens: documents.length, images: 0, documents: results.length } });
};
globalThis.FileReader = class { // a file that is gone
  readAsDataURL() { queueMicrotask(() => this.onerror()); }
};
const { rank } = await import(RANKING);
const told = [];
const whole = await rank({ query: { text: "q" }, documents: DOCUMENTS.map((text) =>
  text === "gone" ? { text, image: { name: "gone.jpg", size: 1 } } : { text }) },
  { onProgress: (done, total) => told.push([done, total]) });
console.log(JSON.stringify({ whole, told, calls }));
"""


def rank(documents: list[str], most: int = 1000) -> dict[str, Any]:
    driver = pytest.importorskip("playwright._impl._driver", reason="playwright, which brings node, is not installed")
    constants = {"MOST": most, "DOCUMENTS": documents, "RANKING": (SITE / "shell" / "ranking.js").as_uri()}
    script = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in constants.items()) + GATEWAY
    node = str(driver.compute_driver_executable()[0])
    done = subprocess.run(
        [node, "--input-type=module"], input=script, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


def test_pieces_make_the_whole_ranking_with_the_callers_positions() -> None:
    documents = ["x" * (number * 7 % 50 + 1) for number in range(50)]
    answer = rank(documents)
    expected = sorted(range(50), key=lambda index: (-len(documents[index]), index))
    assert [result["index"] for result in answer["whole"]["results"]] == expected
    assert answer["told"][-1] == [50, 50]
    assert len(answer["calls"]) > 2
    assert answer["whole"]["usage"] == {"total_tokens": 50, "images": 0, "documents": 50}
    assert answer["whole"]["warnings"] == ["w"]


def test_a_piece_in_which_nothing_can_be_ranked_is_no_failure_of_the_others() -> None:
    answer = rank(["bad"] * 8 + ["good"] * 8)
    assert [error["index"] for error in answer["whole"]["errors"]] == list(range(8))
    assert [result["index"] for result in answer["whole"]["results"]] == list(range(8, 16))


def test_a_gateway_that_takes_few_documents_is_asked_for_fewer() -> None:
    answer = rank([f"text {number}" for number in range(20)], most=3)
    assert len(answer["whole"]["results"]) == 20
    assert max(answer["calls"][-3:]) <= 3


def test_a_file_that_is_gone_is_an_error_of_its_document() -> None:
    answer = rank(["one", "gone", "two"])
    assert [(error["index"], error["type"]) for error in answer["whole"]["errors"]] == [(1, "file_gone")]
    assert {result["index"] for result in answer["whole"]["results"]} == {0, 2}
    assert answer["told"][-1] == [3, 3]
