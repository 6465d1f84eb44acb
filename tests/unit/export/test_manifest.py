"""What the exporter writes about an export."""

import pytest
from lychee_client.manifest import GoldenPairs
from lychee_export.families import Checkpoint
from lychee_export.repository.manifest import build_manifest, find_version, golden_tolerance
from msgspec import structs


@pytest.mark.parametrize(
    ("golden_error", "tolerance"),
    [(0.0, 1e-4), (8e-5, 1e-4), (8.1e-5, 0.005), (0.004, 0.005), (0.0041, 0.01), (0.081, 0.15), (0.19, 0.2)],
)
def test_golden_pairs_may_differ_a_little_more_than_the_export_did(golden_error: float, tolerance: float) -> None:
    assert golden_tolerance(golden_error) == tolerance


def test_the_manifest_carries_the_tolerance(toy: Checkpoint) -> None:
    assert build_manifest(toy.card, (), (), "w8", 0.02, {"tokenizer": "0" * 64}).golden_pairs.tolerance == 0.02


def test_the_version_is_made_of_what_decides_a_score(toy: Checkpoint) -> None:
    artifacts = {"tokenizer": "0" * 64, "encoder/model.onnx": "1" * 64, "client_assets/reference_rows.npz": "2" * 64}
    manifest = build_manifest(toy.card, (), toy.make_reference().golden_pairs, "w8", 0.02, artifacts)
    version = manifest.version
    assert version is not None
    assert 0 < version < 2**48
    (pair,) = manifest.golden_pairs.pairs
    measured = GoldenPairs(0.03, (structs.replace(pair, relevance_score=0.25),))
    rows = {**artifacts, "client_assets/reference_rows.npz": "3" * 64}
    for changes in ({"created_by": {"torch": "9"}}, {"golden_pairs": measured}, {"artifacts": rows}, {"version": 1}):
        assert find_version(structs.replace(manifest, **changes)) == version, changes
    text = structs.replace(manifest.text, query_prefix="other: ")
    for changes in (
        {"artifacts": {**artifacts, "encoder/model.onnx": "4" * 64}},
        {"artifacts": {**artifacts, "tokenizer": "4" * 64}},
        {"precision": "w4"},
        {"revision": "1"},
        {"text": text},
        {"max_batch_size": {"encoder": 3}},
    ):
        assert find_version(structs.replace(manifest, **changes)) != version, changes
