"""What the exporter writes about an export."""

import pytest
from lychee_export.families import Checkpoint
from lychee_export.repository.manifest import build_manifest, golden_tolerance


@pytest.mark.parametrize(
    ("golden_error", "tolerance"),
    [(0.0, 1e-4), (8e-5, 1e-4), (8.1e-5, 0.005), (0.004, 0.005), (0.0041, 0.01), (0.081, 0.15), (0.19, 0.2)],
)
def test_golden_pairs_may_differ_a_little_more_than_the_export_did(golden_error: float, tolerance: float) -> None:
    assert golden_tolerance(golden_error) == tolerance


def test_the_manifest_carries_the_tolerance(toy: Checkpoint) -> None:
    assert build_manifest(toy.card, (), (), "w8", 0.02, {"tokenizer": "0" * 64}).golden_pairs.tolerance == 0.02
