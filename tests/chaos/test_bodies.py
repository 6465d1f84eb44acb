"""Mutated JSON: never an error of the server, and good documents keep their exact score beside bad ones."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any, Final

import pytest
from lychee_server.gateway.request_schemas import PIXEL, RERANK_EXAMPLES, SCORE_EXAMPLES

from .conftest import IS_CHAOS, Call

SEED: Final = 14
BODIES: Final = 20_000 if IS_CHAOS else 2000
CALLS: Final = 4000 if IS_CHAOS else 400  # with good neighbours
GOOD: Final[list[Any]] = ["aaaa", {"text": "bbbb"}, {"image": PIXEL}, {"text": "cc", "image": PIXEL}]
PATHS: Final = ("/v1/rerank", "/v2/rerank", "/v1/score")
FULL: Final[dict[str, Any]] = {
    "query": "aaaa",
    "documents": GOOD,
    "model": "fake",
    "user": "u",
    "strict": False,
    "top_n": 2,
    "score_threshold": 0.1,
    "min_results": 1,
    "return_documents": True,
    "instruction": {"name": "search", "language": "en"},
    "policy": {"accept": 0.7, "review": 0.4},
    "priority": "bulk",
    "server_timings": True,
    "rank_fields": ["text"],
}
NASTY: Final[list[Any]] = [
    None, True, False, 0, -1, 1, 0.5, 1e308, 10**400, -(10**400), "", " ", "2", "true", "\u200b", "\x00", "\ud800",
    "a\udfff", "😀" * 99, "a" * 70_000, "<|im_end|>", "{instruction}", "../../etc/passwd", "data:,", PIXEL, PIXEL[:60],
    "data:image/png;base64,", "data:image/png;base64,!!!!", "data:image/svg+xml;base64,PHN2Zz4=", "http://", "http://.wild.example/",
    "http://a..wild.example/", f"http://{'a' * 64}.wild.example/", "http://xn--a.wild.example/", "http://[::1",
    "https://127.0.0.1/", "file:///etc/passwd", [], {}, [[]], [{}], {"": ""}, {"text": None, "image": None}, ["a", "b"],
    {"text": "a", "image": "a", "url": "a"}, {"content": []}, {"content": None}, {"content": [None]},
    {"content": [{"type": "text"}]}, {"content": [{"type": "image_url", "image_url": {"url": None}}]},
    {"content": [{"type": "text", "text": "a"}] * 65}, {"content": [{"type": "image", "image": PIXEL}] * 2},
    {"image_url": PIXEL}, {"text": "a", "image_url": {"url": PIXEL[22:]}, "id": 1, "\ud800": {}},
    {"text": {"text": {"text": "a"}}}, {"image": ["a"]}, {"image": 5}, {"text": ["a"]}, float("nan"), float("inf"),
]  # fmt: skip
STRANGE: Final = [b"[" * 2000, b'{"a":' * 500, b"\xff\xfe", b"\\ud800", b"9" * 5000, b"1e999"]

# Every answer has its warnings; the gateway has Python leave them out.
pytestmark = pytest.mark.filterwarnings("ignore::lychee_client.LycheeWarning")


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container with every key or index in it."""
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(inner, (dict, list)):
            yield from places(inner)


def mutate_json(value: Any, rng: random.Random) -> None:
    """Change one place: another value, nothing, another name, one more key, or the same again and again."""
    container, key = rng.choice(list(places(value)))
    kind = rng.randrange(6)
    if kind == 0:
        del container[key]
    elif kind == 1 and isinstance(container, dict):
        container[f"{key}_"] = container.pop(key)
    elif kind == 2 and isinstance(container, dict):
        container[rng.choice(["", "text", "image", "content", "id", "x" * 999, "\x00"])] = copy.deepcopy(
            rng.choice(NASTY)
        )
    elif kind == 3 and isinstance(container, list):
        container.extend([container[key]] * rng.choice([1, 150]))
    else:
        container[key] = copy.deepcopy(rng.choice(NASTY))


def mutate_bytes(body: bytes, rng: random.Random) -> bytes:
    """Change a few bytes, cut off the end, repeat or nest a part."""
    data = bytearray(body)
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(data) + 1)
        kind = rng.randrange(5)
        if kind == 0:
            data[start:] = b""
        elif kind == 1:
            data[start : start + rng.randint(0, 9)] = rng.randbytes(rng.randint(0, 9))
        elif kind == 2:
            data[start:start] = rng.choice(
                [b"[" * 2000, b'{"a":' * 500, b"\xff\xfe", b"\\ud800", b"9" * 5000, b"1e999"]
            )
        elif kind == 3:
            data[start:start] = data[start : start + 40]
        elif start < len(data):
            data[start] ^= 1 << rng.randrange(8)
    return bytes(data)


def may_time_out(body: bytes) -> bool:
    return b"timeout_ms" in body


@pytest.mark.parametrize("part", range(4))
def test_no_body_is_an_error_of_the_server(call: Call, part: int) -> None:
    rng = random.Random(SEED + part)
    examples = [FULL, *(example["value"] for example in (*RERANK_EXAMPLES.values(), *SCORE_EXAMPLES.values()))]
    for _ in range(BODIES // 4):
        value = copy.deepcopy(rng.choice(examples))
        for _ in range(rng.randint(0, 3)):
            if value:
                mutate_json(value, rng)
        body = json.dumps(value).encode()
        if rng.random() < 0.3:
            body = mutate_bytes(body, rng)
        status, answer = call(rng.choice(PATHS), body)
        assert status < 500 or (status == 504 and may_time_out(body)), (body[:2000], answer)


@pytest.mark.parametrize("part", range(4))
def test_good_documents_keep_their_score_beside_any_other(call: Call, part: int) -> None:
    alone = call("/v1/rerank", json.dumps({"query": "aaaa", "documents": GOOD}).encode())[1]["results"]
    expected = {result["index"]: (result["relevance_score"], result["logit"]) for result in alone}
    assert set(expected) == set(range(len(GOOD)))
    rng = random.Random(100 * SEED + part)
    for _ in range(CALLS // 4):
        bad = copy.deepcopy([rng.choice(GOOD), *rng.choices(NASTY, k=rng.randint(0, 5))])
        mutate_json(bad, rng)
        bad = [
            value for value in bad[:60] if value == value and value not in (float("inf"),)
        ]  # JSON has no such number
        documents: list[Any] = [*GOOD, *bad]
        rng.shuffle(documents)
        status, answer = call("/v1/rerank", json.dumps({"query": "aaaa", "documents": documents}).encode())
        assert status == 200, (documents, answer)
        told = [result["index"] for result in answer["results"]]
        assert sorted(told) == list(range(len(documents))), (documents, answer)
        unranked = [result["index"] for result in answer["results"] if result["decision"] == "error"]
        assert unranked == [failed["index"] for failed in answer["errors"]], (documents, answer)
        scores = {result["index"]: (result["relevance_score"], result["logit"]) for result in answer["results"]}
        for index, document in enumerate(documents):
            if document in GOOD:
                assert scores[index] == expected[GOOD.index(document)], (documents, answer)
