"""A calibration as `lychee calibrate` would have made it."""

from __future__ import annotations

from lychee_client import Calibration
from lychee_client.manifest.manifest import ModelIdentity
from lychee_client.score_mapping import PlattMapping


def make_calibration(model: ModelIdentity, threshold: float, instruction: str | None = None) -> Calibration:
    """Return one with this threshold.

    Args:
        model: The model that it is for.
        threshold: From which score on documents are accepted; none is for review.
        instruction: The instruction that the pairs were scored with.
    """
    return Calibration(
        created_at="2026-11-22T09:30:00Z",
        client_version="0",
        model=model,
        instruction=instruction,
        target="precision>=0.95",
        threshold=threshold,
        threshold_low=threshold,
        threshold_high=threshold,
        confidence=0.95,
        review_threshold=threshold,
        precision=1.0,
        recall=0.5,
        f1=0.6,
        pairs=30,
        positives=10,
        queries=10,
        mapping=PlattMapping(1.0, 0.0),
        data_sha256="0" * 64,
    )
