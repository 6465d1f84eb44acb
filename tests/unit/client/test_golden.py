"""Golden pairs: replayed and compared."""

import base64
import io
from typing import Any

import PIL.Image
import pytest
from fakes.dual_encoder import FakeTransport
from lychee_client import ContractError, LycheeClient


def png() -> str:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (30, 20), "red").save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


INPUTS: list[tuple[dict[str, str], dict[str, str]]] = [
    ({"text": "query"}, {"text": "document"}),
    ({"text": "query"}, {"image_png_base64": png()}),
    ({"text": "query", "image_png_base64": png()}, {"image_png_base64": png(), "text": "red"}),
]


def with_pairs(pairs: list[dict[str, Any]]) -> LycheeClient:
    return LycheeClient(transport=FakeTransport(manifest={"golden_pairs": {"tolerance": 0.02, "pairs": pairs}}))


def measure() -> list[float]:
    pairs = [{"query": query, "document": document, "relevance_score": 0} for query, document in INPUTS]
    with with_pairs(pairs) as client:
        return [pair.measured for pair in client.check_golden_pairs().pairs]


@pytest.mark.parametrize(("drift", "passed"), [(0.0, True), (0.019, True), (0.021, False), (-0.021, False)])
def test_drift_beyond_the_tolerance_fails(drift: float, passed: bool) -> None:
    pairs = [
        {"query": query, "document": document, "relevance_score": score}
        for (query, document), score in zip(INPUTS, measure(), strict=True)
    ]
    pairs[1]["relevance_score"] += drift
    with with_pairs(pairs) as client:
        report = client.check_golden_pairs()
    assert report.passed is passed
    assert report.max_abs_error == pytest.approx(abs(drift), abs=1e-9)
    assert (report.tolerance, len(report.pairs)) == (0.02, 3)


def test_no_pairs_pass() -> None:
    with with_pairs([]) as client:
        assert client.check_golden_pairs().passed


@pytest.mark.parametrize("document", [{}, {"url": "x"}, {"image_png_base64": "no base64!"}, {"image_png_base64": 3}])
def test_unreadable_pair_is_a_contract_error(document: dict[str, Any]) -> None:
    pair = {"query": {"text": "q"}, "document": document, "relevance_score": 0.5}
    with with_pairs([pair]) as client, pytest.raises(ContractError, match=r"golden_pairs\.pairs.*image_png_base64"):
        client.check_golden_pairs()
