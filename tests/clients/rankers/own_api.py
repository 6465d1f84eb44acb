"""What vendors' own clients are asked beyond scores, and the check of what they answer."""

from __future__ import annotations

from typing import Any

import pytest

from rankers.ranker import MODEL, Native

TEXTS = ["a cup of coffee", "店里的小猫喜欢在窗台上晒太阳。", "猎鹰九号火箭竖立在发射台上。"]
CALL: dict[str, Any] = {"model": MODEL, "query": "一只猫", "documents": TEXTS, "top_n": 2}


def check(answer: Any, native: Native) -> None:
    """Compare a client's answer with that of the gateway's own route."""
    expected = native(CALL["query"], TEXTS, top_n=2)["results"]
    assert [result.index for result in answer.results] == [result["index"] for result in expected]
    for result, ours in zip(answer.results, expected, strict=True):
        assert result.relevance_score == pytest.approx(ours["relevance_score"], abs=1e-6)
