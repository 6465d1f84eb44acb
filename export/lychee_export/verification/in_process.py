"""A server in this process: the client's requests, answered by ONNX Runtime on a repository's files."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from lychee_client import (
    ConfigurationError,
    GoldenReport,
    InferenceError,
    LycheeClient,
    LycheeError,
    ModelNotReadyError,
    RequestRejectedError,
)
from lychee_client.repository import MODEL_FILENAME, newest_version, read_config
from lychee_client.transports.base import InferRequest, InferResponse, Request, Tensor
from tritonclient.grpc import model_config_pb2

from lychee_export.errors import ValidationError
from lychee_export.onnx.runtime import open_session

__all__ = ["InProcessTransport", "check_golden_pairs_in_process", "in_process_client", "measure_golden_error"]

_ADDRESS = "grpc://in-process:1"
"""Stands where the client names the server in its messages; nothing connects to it."""


class InProcessTransport:
    """Answers the client as a server would that runs the repository's models on ONNX Runtime's plain CPU provider.

    Follows ``config.pbtxt``: file names, batch sizes, and the steps of ensembles. A model is opened when it is first
    asked for.

    Args:
        repository: The model repository.
    """

    def __init__(self, repository: Path) -> None:
        self._repository = repository
        self._configs: dict[str, model_config_pb2.ModelConfig] = {}
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}
        self._lock = threading.Lock()

    def send(self, request: Request, timeout_s: float | None) -> Future[Any]:
        """Compute the answer before returning; see Transport."""
        future: Future[Any] = Future()
        try:
            future.set_result(self._answer(request))
        except LycheeError as error:
            future.set_exception(error)
        return future

    def close(self, farewell: Request | None = None) -> None:
        """Release the models."""
        self._sessions.clear()

    def _answer(self, request: Request) -> InferResponse | dict[str, Any]:
        if not isinstance(request, InferRequest):
            return {"ready": True, "instance_group": [{"kind": "KIND_CPU"}]}
        served = newest_version(self._repository / request.model_name).name
        if request.model_version not in ("", served):
            raise ModelNotReadyError(
                f"{request.model_name} lies in the folder {served}, and the manifest names version "
                f"{request.model_version}; run `lychee export` again",
                model_name=request.model_name,
            )
        with self._lock:
            tensors = self._run(request.model_name, request.inputs)
        return InferResponse({name: tensors[name] for name in request.outputs})

    def _run(self, name: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        config = self._config(name)
        _check_request(name, config, inputs)
        if config.platform == "ensemble":
            tensors = dict(inputs)
            for step in config.ensemble_scheduling.step:
                made = self._run(step.model_name, {key: tensors[value] for key, value in step.input_map.items()})
                tensors |= {value: made[key] for key, value in step.output_map.items()}
            return tensors
        names = [spec.name for spec in config.output]
        try:
            outputs = self._session(name, config).run(names, dict(inputs))
        except LycheeError:
            raise
        except Exception as error:  # ONNX Runtime's errors have no common base
            raise InferenceError(f"{name}: ONNX Runtime failed: {error}", model_name=name) from error
        return {key: _to_wire(value) for key, value in zip(names, outputs, strict=True)}

    def _config(self, name: str) -> model_config_pb2.ModelConfig:
        if name not in self._configs:
            try:
                self._configs[name] = read_config(self._repository / name)
            except ConfigurationError as error:
                raise ModelNotReadyError(f"{error}; run `lychee export` again", model_name=name) from error
        return self._configs[name]

    def _session(self, name: str, config: model_config_pb2.ModelConfig) -> onnxruntime.InferenceSession:
        if name not in self._sessions:
            try:
                path = newest_version(self._repository / name) / (config.default_model_filename or MODEL_FILENAME)
                self._sessions[name] = open_session(path)
            except Exception as error:  # ONNX Runtime's errors have no common base
                raise ModelNotReadyError(f"{name} cannot be loaded: {error}", model_name=name) from error
        return self._sessions[name]


def in_process_client(repository: Path) -> LycheeClient:
    """Return a client whose server is the repository's files; close it after use."""
    return LycheeClient(_ADDRESS, transport=InProcessTransport(repository), embedding_cache=None)


def check_golden_pairs_in_process(repository: Path) -> GoldenReport:
    """Replay a repository's golden pairs with the client's own preprocessing and the repository's own files.

    Raises:
        ValidationError: The client cannot use the repository, or a pair cannot be scored.
    """
    try:
        with in_process_client(repository) as client:
            return client.check_golden_pairs(timeout_s=None)
    except LycheeError as error:
        raise ValidationError(f"the client cannot use {repository}: {error}") from error


def _check_request(name: str, config: model_config_pb2.ModelConfig, inputs: Mapping[str, Tensor]) -> None:
    """Refuse what a server would refuse.

    Raises:
        RequestRejectedError: A tensor's name or shape is wrong, or the batch is over the limit.
    """
    problem = _find_problem(config, inputs)
    if problem:
        raise RequestRejectedError(f"{name} refuses the request: {problem}", model_name=name)


def _find_problem(config: model_config_pb2.ModelConfig, inputs: Mapping[str, Tensor]) -> str:
    expected = {spec.name for spec in config.input}
    if set(inputs) != expected:
        return f"the inputs are {sorted(inputs)}, expected {sorted(expected)}"
    limit = config.max_batch_size
    sizes = {len(tensor) for tensor in inputs.values()} if limit else {0}
    if len(sizes) > 1 or max(sizes, default=0) > limit:
        return f"the batches have {sorted(sizes)} rows, expected the same of all, at most {limit}"
    for spec in config.input:
        shape = inputs[spec.name].shape[1 if limit else 0 :]
        fits = len(shape) == len(spec.dims) and all(
            dim in {-1, size} for dim, size in zip(spec.dims, shape, strict=True)
        )
        if not fits:
            return f"{spec.name} has the shape {shape}, expected {tuple(spec.dims)}"
    return ""


def _to_wire(tensor: Tensor) -> Tensor:
    """Give strings as bytes, as they come over the wire."""
    if tensor.dtype.kind not in "OUS":
        return tensor
    encoded = [item.encode() if isinstance(item, str) else item for item in tensor.ravel()]
    return np.array(encoded, dtype=object).reshape(tensor.shape)


def measure_golden_error(repository: Path, accepted: float) -> float:
    """Score the golden pairs as the client does, with its own preprocessing: the torch modules never saw that.

    Args:
        repository: The repository to check.
        accepted: How far a score may be from the reference's.

    Returns:
        The largest absolute difference of a score.

    Raises:
        ValidationError: A score is off by more than is accepted.
    """
    error = check_golden_pairs_in_process(repository).max_abs_error
    if not error <= accepted:
        raise ValidationError(
            f"with the client's preprocessing, a golden pair's score differs from the reference by {error:.3g}; "
            f"accepted is {accepted:g}. With fewer bits per weight, choose a precision with more"
        )
    return error
