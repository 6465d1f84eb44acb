"""What a manifest says of pages and texts, and of what an export took away."""

import copy
import json
from types import SimpleNamespace
from typing import Any

import pytest
from fakes.cross_encoder import PATCHES_MANIFEST, TEXT_MANIFEST
from fakes.dual_encoder import MANIFEST
from lychee_client.checks.server import check_manifest
from lychee_client.manifest import CheckpointLimits, Manifest, describe_reading, parse_manifest, write_manifest

LYCHEE = {"max_tokens": 3200, "max_pixels": 1280 * 28 * 28}
JINA = {"max_tokens": 10240, "max_pixels": 768 * 28 * 28}


def manifest(own: dict[str, int] | None, max_tokens: int, max_pixels: int, **changes: Any) -> Manifest:
    data = copy.deepcopy({**MANIFEST, **PATCHES_MANIFEST, "artifacts": {"tokenizer": "ab" * 32}, **changes})
    del data["embedding_dim"]
    data["text"] |= {"max_tokens": max_tokens, "buckets": [max_tokens]}
    data["image"] |= {"max_pixels": max_pixels, "buckets": [2 * 5120]}
    if own is not None:
        data["checkpoint_limits"] = own
    return parse_manifest(json.dumps(data))


@pytest.mark.parametrize(
    ("own", "max_tokens", "max_pixels", "page", "text"),
    [
        (LYCHEE, 3200, LYCHEE["max_pixels"], "read as 840 x 1,176 (1,260 tokens)", "at most 3,200 tokens of query,"),
        (JINA, 10240, JINA["max_pixels"], "read as 644 x 896 (736 tokens)", "at most 10,240 tokens of query,"),
        (
            LYCHEE,
            2048,
            512**2,
            "read as 420 x 588 (315 tokens) instead of 840 x 1,176 (1,260 tokens); a larger --max-img-size",
            "their images instead of 3,200; a larger --max-tokens",
        ),
    ],
)
def test_a_page_and_a_text_are_told_with_what_the_export_took_away(
    own: dict[str, int], max_tokens: int, max_pixels: int, page: str, text: str
) -> None:
    described = manifest(own, max_tokens, max_pixels)
    image_line, text_line = describe_reading(described)
    assert page in image_line
    assert text in text_line
    assert ("instead" in image_line) == ("instead" in text_line) == (max_pixels == 512**2)
    assert parse_manifest(write_manifest(described)).checkpoint_limits == CheckpointLimits(**own)


def test_manifests_of_older_exporters_and_models_of_one_size_say_nothing() -> None:
    assert manifest(None, 2048, 512**2).checkpoint_limits is None
    assert list(describe_reading(manifest(None, 2048, 512**2))) == []
    fixed = json.dumps({**MANIFEST, "artifacts": {"tokenizer": "ab" * 32}, "checkpoint_limits": LYCHEE})
    assert list(describe_reading(parse_manifest(fixed))) == []


def test_model_without_images_says_how_long_a_text_it_reads() -> None:
    data = {**MANIFEST, **TEXT_MANIFEST, "artifacts": {"tokenizer": "ab" * 32}}
    del data["embedding_dim"]
    (line,) = describe_reading(parse_manifest(json.dumps(data)))
    expected = (
        "texts: at most 64 tokens of query and document instead of 512; a larger --max-tokens at export keeps more"
    )
    assert line == expected


def test_doctor_says_what_the_export_took_away() -> None:
    context: Any = SimpleNamespace(manifest_or_error=manifest(LYCHEE, 2048, 512**2))
    (result,) = check_manifest(context)
    assert result.verdict == "ok"
    assert "420 x 588 (315 tokens) instead of 840 x 1,176" in result.seen
    assert "at most 2,048 tokens" in result.seen
