"""What the exporter writes about an export."""

from lychee_export.families import Checkpoint
from lychee_export.manifest import build_manifest
from lychee_export.quantization import PRECISIONS
from lychee_export.validation import Parity


def test_golden_pairs_may_differ_as_far_as_the_validation_accepts(toy: Checkpoint) -> None:
    parity = {"cpu": Parity(0.0, 0.0, 0.0, 1.0, 0.0, 0.0)}
    manifests = {precision: build_manifest(toy.card, (), (), precision, parity, {}) for precision in PRECISIONS}
    tolerances = {precision: manifest["golden_pairs"]["tolerance"] for precision, manifest in manifests.items()}
    assert tolerances == {"fp32": 0.03, "fp16": 0.03, "w8": 0.03, "w4": 0.2, "s8": 0.15}
