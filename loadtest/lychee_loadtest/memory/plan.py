"""What a whole deployment needs for a batch, and whether that fits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from lychee_client.repository import TRITON_BYTES

from lychee_loadtest.memory.layers import Layers, ModelMeasurement, Prediction, predict, repeat_error

__all__ = [
    "STUB_BYTES",
    "Answer",
    "ModelNeed",
    "Need",
    "Verdict",
    "answer",
    "plan_memory",
]

Verdict: TypeAlias = Literal["fits", "too close to call", "does not fit"]
STUB_BYTES: Final = 5_000_000
"""What passing requests through shared memory adds to each model's process, which the probe does not do; measured."""
LEAST_NOTED_BYTES: Final = 1_000_000


@dataclass(frozen=True)
class ModelNeed:
    """What all processes of a model need.

    Attributes:
        measurement: What the prediction rests on.
        prediction: The prediction for one of its processes.
    """

    measurement: ModelMeasurement
    prediction: Prediction

    @property
    def layers(self) -> Layers:
        """The layers of all its processes together."""
        return self.prediction.layers.scaled(self.measurement.instances)

    @property
    def error_bytes(self) -> float:
        """Half the width of the 95 % interval: what is off is off in every process."""
        return self.prediction.error_bytes * self.measurement.instances

    @property
    def is_extrapolated(self) -> bool:
        """Whether more rows at once than were measured take memory worth a note."""
        layers = self.prediction.layers
        return self.prediction.extrapolated and layers.temporary + layers.attention > LEAST_NOTED_BYTES

    @property
    def load_peak_bytes(self) -> int:
        """The most that all its processes take while it is loaded."""
        return self.measurement.load_peak_bytes * self.measurement.instances


@dataclass(frozen=True)
class Need:
    """What a deployment needs, in main memory, or on the GPU if a model runs there.

    Attributes:
        batch: How many documents one batch has.
        images: Whether they have images.
        tokens: How many tokens the longest row has; None if no model reads text.
        models: What each model needs, in the order of the repository.
        on_gpu: Whether this is memory of the GPU; then models that do not run there are left out.
    """

    batch: int
    images: bool
    tokens: int | None
    models: tuple[ModelNeed, ...]
    on_gpu: bool

    @property
    def server_bytes(self) -> int:
        """Triton itself, and its share of the models' processes."""
        processes = sum(need.measurement.instances for need in self.models)
        return 0 if self.on_gpu else TRITON_BYTES + STUB_BYTES * processes

    @property
    def layers(self) -> Layers:
        """The layers of all processes, each in full; Triton itself is framework."""
        return sum((need.layers for need in self.models), Layers(framework=self.server_bytes))

    @property
    def shared_bytes(self) -> int:
        """What the sum over the processes counts more than once: libraries that they share."""
        shared = [(need.measurement.shared_bytes, need.measurement.instances) for need in self.models]
        return sum(size * count for size, count in shared) - max((size for size, _ in shared), default=0)

    @property
    def serving_bytes(self) -> float:
        """Memory once every model has run its largest batch, shared libraries once: what a container is charged."""
        return self.layers.total - self.shared_bytes

    @property
    def error_bytes(self) -> float:
        """Half the width of the 95 % interval of `serving_bytes`: errors of different models are independent."""
        return math.hypot(*(need.error_bytes for need in self.models))

    @property
    def loading_bytes(self) -> float:
        """Memory if every model reaches its peak of loading at the same moment: at most that."""
        server = 0 if self.on_gpu else TRITON_BYTES
        return sum(need.load_peak_bytes for need in self.models) + server - self.shared_bytes


@dataclass(frozen=True)
class Answer:
    """Whether a need fits into a limit, in one sentence."""

    verdict: Verdict
    sentence: str


def plan_memory(measurements: Sequence[ModelMeasurement], batch: int, *, images: bool) -> Need:
    """Predict what a deployment needs.

    Args:
        measurements: The measurements of all models of the deployment.
        batch: How many documents one batch has.
        images: Whether they have images; without, models that read pixels are loaded and never run.
    """
    on_gpu = any(model.on_gpu for model in measurements)
    needs = tuple(
        ModelNeed(model, predict(model, batch if images or not model.reads_images else 0))
        for model in measurements
        if model.on_gpu == on_gpu
    )
    sizes = [model.sizes[-1].size for model in measurements if not model.reads_images and model.sizes]
    return Need(batch, images, max((size for size in sizes if size), default=None), needs, on_gpu)


def answer(need: Need, limit_bytes: int) -> Answer:
    """Compare a need with a limit: the larger of serving and loading, with its error."""
    load_error = repeat_error(need.loading_bytes)
    peaks = ((need.serving_bytes, need.error_bytes), (need.loading_bytes, load_error))
    if all(size + error <= limit_bytes for size, error in peaks):
        verdict: Verdict = "fits"
    elif any(size - error > limit_bytes for size, error in peaks):
        verdict = "does not fit"
    else:
        verdict = "too close to call"
    words = {"fits": "fits into", "does not fit": "does not fit into", "too close to call": "is too close to call for"}
    return Answer(
        verdict,
        f"{describe_question(need)} {words[verdict]} {limit_bytes / 1e9:.2f} GB: "
        f"{need.serving_bytes / 1e9:.2f} GB +- {need.error_bytes / 1e9:.2f} while serving, up to "
        f"{need.loading_bytes / 1e9:.2f} GB +- {load_error / 1e9:.2f} while loading"
        f"{_remedy(need, limit_bytes, verdict)}.",
    )


def describe_question(need: Need) -> str:
    """Return what was asked, as the beginning of a sentence."""
    tokens = "" if need.tokens is None else f" of up to {need.tokens} tokens"
    return f"Batch {need.batch} with {'images and ' if need.images else ''}texts{tokens}"


def notes(need: Need) -> Iterator[str]:
    """Yield what a reader of the prediction must know, by model."""
    for model in need.models:
        name, found = model.measurement.model, model.prediction
        if need.batch > found.rows > 0 and model.measurement.max_batch_size:
            yield f"{name} takes at most {found.rows} rows in one batch (max_batch_size)"
        if 0 < found.rows_per_run < found.rows:
            yield f"{name} runs {found.rows_per_run} rows at a time (max_run_elements), so more rows hardly take more"
        if model.is_extrapolated:
            most = model.measurement.sizes[-1].runs[-1].rows
            yield f"{name} was measured up to {most} rows; {found.rows_per_run} are extrapolated"
    unsized = [
        model.measurement.model
        for model in need.models
        if model.prediction.rows
        and model.prediction.layers.temporary > LEAST_NOTED_BYTES
        and len(model.measurement.sizes) < 2
    ]
    if unsized:
        yield f"{', '.join(unsized)}: rows have one size, so attention is counted among the temporary tensors"


def _remedy(need: Need, limit_bytes: int, verdict: Verdict) -> str:
    if verdict == "fits":
        return ""
    if need.loading_bytes > max(need.serving_bytes, limit_bytes):
        return "; loading decides: fewer instances or a smaller model help, a smaller batch does not"
    return "; lower max_run_elements or max_batch_size, or measure with smaller --tokens"
