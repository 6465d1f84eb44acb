"""The manifest: what is read, what is refused."""

import copy
import json
from typing import Any

import pytest
from lychee_client import ContractError
from lychee_client._manifest import ImageSpec, InstructionSpec, ModelIdentity, TextSpec, parse_manifest
from lychee_client._transports.fake import MANIFEST

PAIR = {"query": {"text": "q"}, "document": {"text": "d"}, "relevance_score": 1}


def manifest(**changes: Any) -> str:
    data: dict[str, Any] = {**copy.deepcopy(MANIFEST), "artifacts": {"tokenizer": "ab" * 32}}
    for path, value in changes.items():
        *parents, key = path.split("__")
        target = data
        for parent in parents:
            target = target[parent]
        if value is KeyError:
            del target[key]
        else:
            target[key] = value
    return json.dumps(data)


def test_every_field_is_read() -> None:
    parsed = parse_manifest(manifest(golden_pairs__pairs=[PAIR], unknown_key=1))
    assert parsed.text == TextSpec("query: ", "passage: ", 1, 64, (16, 32, 64))
    assert parsed.image == ImageSpec(224, 224, 256, "bicubic")
    assert parsed.max_batch_size["rerank_text"] == 4
    assert parsed.artifacts == {"tokenizer": "ab" * 32}
    assert parsed.instruction is None
    assert parsed.identity == ModelIdentity("fake", "000000000000", "fp32", {"tokenizer": "ab" * 32})
    assert (parsed.golden_tolerance, parsed.golden_pairs[0].relevance_score) == (0.02, 1.0)
    assert (parsed.family, parsed.model_id, parsed.embedding_dim) == ("fake", "fake", 24)


def test_instruction_is_read() -> None:
    spec = {"default": "Find it.", "query_prefix": "Instruct: {instruction}\nQuery: "}
    assert parse_manifest(manifest(instruction=spec)).instruction == InstructionSpec(**spec)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"text"'])
def test_not_an_object_is_refused(text: str) -> None:
    with pytest.raises(ContractError, match="manifest is"):
        parse_manifest(text)


@pytest.mark.parametrize(("key", "value"), [("format_version", 2), ("pipeline", "cross_encoder")])
def test_newer_manifest_asks_for_a_newer_client(key: str, value: object) -> None:
    with pytest.raises(ContractError, match="upgrade lychee-rerank-client"):
        parse_manifest(manifest(**{key: value}))


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("format_version", KeyError, "format_version"),
        ("format_version", True, "format_version"),
        ("model_id", KeyError, "model_id"),
        ("model_id", 3, "model_id"),
        ("embedding_dim", 0, "embedding_dim"),
        ("text", [], "text"),
        ("text__buckets", [], "text.buckets"),
        ("text__buckets", [32, 16, 64], "text.buckets"),
        ("text__buckets", [16, 16, 64], "text.buckets"),
        ("text__buckets", [16, 32], "text.buckets"),
        ("text__buckets", [0, 64], "text.buckets"),
        ("text__buckets", ["16", "64"], "text.buckets"),
        ("text__max_tokens", KeyError, "text.max_tokens"),
        ("text__pad_token_id", "1", "text.pad_token_id"),
        ("image__height", 300, "resize_shortest_edge"),
        ("image__resample", "lanczos", "upgrade lychee-rerank-client"),
        ("max_batch_size__rerank_text", 0, "max_batch_size.rerank_text"),
        ("artifacts__tokenizer", KeyError, "artifacts.tokenizer"),
        ("artifacts__text_encoder", 3, "artifacts.text_encoder"),
        ("instruction", {"default": "d"}, "instruction.query_prefix"),
        ("instruction", {"default": "d", "query_prefix": "no place"}, "{instruction}"),
        ("instruction", {"query_prefix": "{instruction}"}, "instruction.default"),
        ("golden_pairs__tolerance", None, "golden_pairs.tolerance"),
        ("golden_pairs__pairs", {}, "golden_pairs.pairs"),
        ("golden_pairs__pairs", [1], "golden pair"),
        ("golden_pairs__pairs", [{**PAIR, "relevance_score": "1"}], "relevance_score"),
    ],
)
def test_message_names_the_key(path: str, value: object, named: str) -> None:
    with pytest.raises(ContractError) as caught:
        parse_manifest(manifest(**{path: value}))
    assert named in str(caught.value)
