"""What the server counted while a call ran."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from lychee_client.types import ModelTimings

_COMPUTE: Final = ("compute_input", "compute_infer", "compute_output")


def model_timings(
    before: Mapping[str, Any], after: Mapping[str, Any], model_names: Iterable[str]
) -> dict[str, ModelTimings]:
    """Return what two answers of Triton's statistics differ by, for the models that had requests in between.

    Args:
        before: The first answer.
        after: The second answer. Its integers may be strings, as protobuf's JSON writes them.
        model_names: The models of interest.
    """
    first, second = _by_model(before), _by_model(after)
    timings = {}
    for name in sorted(set(model_names) & second.keys()):
        count, _ = _difference(first.get(name, {}), second[name], "success")
        if count <= 0:  # no request, or the model was loaded anew
            continue
        queued, queue_ns = _difference(first.get(name, {}), second[name], "queue")
        compute_ns = sum(_difference(first.get(name, {}), second[name], key)[1] for key in _COMPUTE)
        timings[name] = ModelTimings(
            requests=count,
            queue_ms=queue_ns / max(1, queued) / 1e6,
            compute_ms=compute_ns / max(1, queued) / 1e6,
        )
    return timings


def _by_model(answer: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {model["name"]: model.get("inference_stats", {}) for model in answer.get("model_stats", [])}


def _difference(before: Mapping[str, Any], after: Mapping[str, Any], key: str) -> tuple[int, int]:
    """Return count and nanoseconds."""
    old, new = before.get(key, {}), after.get(key, {})
    return (
        int(new.get("count", 0)) - int(old.get("count", 0)),
        int(new.get("ns", 0)) - int(old.get("ns", 0)),
    )
