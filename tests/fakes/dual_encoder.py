"""A server in this process, for tests: it computes real, if simple, scores from the tensors it is sent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from lychee_client._errors import ConnectionFailedError, LycheeError, ModelNotReadyError, RequestRejectedError
from lychee_client.transports.base import (
    Ambiguity,
    ControlRequest,
    InferRequest,
    InferResponse,
    Request,
    Tensor,
    TransportError,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from fakes import cross_encoder as fake_cross_encoder

EMBEDDING_DIM: Final = 24
LOGIT_SCALE: Final = np.float32(4.0)
VOCABULARY_SIZE: Final = 260
MANIFEST: Final[dict[str, Any]] = {
    "format_version": 2,
    "family": "fake",
    "pipeline": "dual_encoder",
    "model_id": "fake",
    "revision": "000000000000",
    "precision": "fp32",
    "embedding_dim": EMBEDDING_DIM,
    "text": {
        "query_prefix": "query: ",
        "document_prefix": "passage: ",
        "pad_token_id": 1,
        "max_tokens": 64,
        "buckets": [16, 32, 64],
    },
    "image": {"kind": "crop", "height": 224, "width": 224, "resize_shortest_edge": 256, "resample": "bicubic"},
    "max_batch_size": {
        "text_encoder": 4,
        "vision_encoder": 2,
        "scoring_head_text": 4,
        "scoring_head_image": 4,
        "scoring_head_image_text": 4,
        "rerank_text": 4,
        "rerank_image": 2,
        "rerank_image_text": 2,
    },
    "golden_pairs": {"tolerance": 0.02, "pairs": []},
}


def manifest_json(**changes: Any) -> str:
    """Return the manifest as a file holds it, with keys replaced."""
    return json.dumps({**MANIFEST, "artifacts": {"tokenizer": "0" * 64}, **changes})


_TEXT: Final = {"input_ids", "attention_mask"}
_IMAGE: Final = {"pixel_values"}
_INPUTS: Final[dict[str, set[str]]] = {
    "text_encoder": _TEXT,
    "vision_encoder": _IMAGE,
    "scoring_head_text": {"query_embedding", "text_embedding"},
    "scoring_head_image": {"query_embedding", "image_embedding"},
    "scoring_head_image_text": {"query_embedding", "text_embedding", "image_embedding"},
    "rerank_text": {"query_embedding"} | _TEXT,
    "rerank_image": {"query_embedding"} | _IMAGE,
    "rerank_image_text": {"query_embedding"} | _TEXT | _IMAGE,
}
_NANOSECONDS: Final = {
    "success": 3_000_000,
    "queue": 1_000_000,
    "compute_input": 500_000,
    "compute_infer": 1_000_000,
    "compute_output": 500_000,
    "cache_hit": 0,
    "cache_miss": 0,
}
_DTYPES: Final[dict[str, type]] = {
    "input_ids": np.int64,
    "attention_mask": np.int64,
    "pixel_values": np.uint8,
    "query_embedding": np.float32,
    "text_embedding": np.float32,
    "image_embedding": np.float32,
}

Embedding = npt.NDArray[np.float32]


class FakeTransport:
    """A Transport without a network.

    Args:
        intercept: Called with every request: may raise a TransportError or a LycheeError, or return an answer in
            place of the computed one. None computes.
        manifest: Replaces keys of the manifest; with PATCHES_MANIFEST or STRETCH_MANIFEST it is a cross-encoder. With a
            `version` the server has that one alone.
        weights: Of a dual encoder: other ones give other embeddings.

    Attributes:
        requests: Everything that was sent, in order.
        live: Set to False to play a server that is gone.
    """

    def __init__(
        self,
        intercept: Callable[[Request], Any] | None = None,
        manifest: Mapping[str, Any] | None = None,
        weights: int = 0,
    ) -> None:
        self.weights = weights
        self.requests: list[Request] = []
        self.live = True
        self._intercept = intercept
        self._manifest = {**MANIFEST, **(manifest or {})}
        self._is_cross_encoder = self._manifest["pipeline"] == "cross_encoder"
        make_tokenizer = fake_cross_encoder.make_tokenizer_json if self._is_cross_encoder else make_tokenizer_json
        self._tokenizer_json = make_tokenizer()
        artifacts = {f"{name}/model.onnx": "0" * 64 for name in ("text_encoder", "vision_encoder")}
        artifacts["tokenizer"] = hashlib.sha256(self._tokenizer_json.encode()).hexdigest()
        self._manifest_json = json.dumps({"artifacts": artifacts, **self._manifest})
        self._names = self._manifest["max_batch_size"] if self._is_cross_encoder else _INPUTS
        self._version = str(self._manifest.get("version") or 1)

    def send(self, request: Request, timeout_s: float | None) -> Future[Any]:
        """See Transport."""
        future: Future[Any] = Future()
        self.requests.append(request)
        try:
            if not self.live:
                raise TransportError(
                    ConnectionFailedError, None, "the fake server is gone", request.request_id or "fake"
                )
            if self._lacks_version(request):
                raise TransportError(Ambiguity.REJECTED_OR_NOT_READY, "404", "no such version", "fake")
            answer = self._intercept(request) if self._intercept else None
            if answer is None:
                answer = self._answer(request) if isinstance(request, InferRequest) else self._control(request)
            future.set_result(answer)
        except (LycheeError, TransportError) as error:
            future.set_exception(error)
        return future

    def close(self, farewell: Request | None = None) -> None:
        """See Transport."""
        if farewell is not None:
            self.send(farewell, None)
        self.live = False

    def _lacks_version(self, request: Request) -> bool:
        if isinstance(request, ControlRequest) and request.action == "model_ready":
            return False
        return isinstance(request, InferRequest | ControlRequest) and request.model_version not in ("", self._version)

    def _control(self, request: ControlRequest) -> dict[str, Any]:
        if request.action == "model_ready":
            is_known = request.name == "client_assets" or request.name in self._names
            return {"ready": is_known and request.model_version in ("", self._version)}
        if request.action == "metadata":
            return {"name": "fake", "version": "0"}
        names = ["client_assets", *self._names]
        if request.action == "index":
            return {"models": [{"name": name, "version": self._version, "state": "READY"} for name in names]}
        if request.action == "config":
            return {"name": request.name, "instance_group": [{"kind": "KIND_CPU"}]}
        if request.action == "statistics":
            return {"model_stats": [self._count(name) for name in names]}
        return {"ready": True}

    def _count(self, name: str) -> dict[str, Any]:
        """Return a model's statistics: each request waited 1 ms and was computed in 2."""
        count = sum(isinstance(request, InferRequest) and request.model_name == name for request in self.requests)
        stats = {key: {"count": count if ns else 0, "ns": count * ns} for key, ns in _NANOSECONDS.items()}
        return {"name": name, "version": self._version, "inference_stats": stats}

    def _answer(self, request: InferRequest) -> InferResponse:
        if request.model_name == "client_assets":
            texts = {"manifest": self._manifest_json, "tokenizer": self._tokenizer_json}
            return InferResponse({name: np.array([texts[name].encode()], object) for name in request.outputs})
        if self._is_cross_encoder:
            outputs = fake_cross_encoder.score_pairs(request, self._manifest)
            return InferResponse({name: outputs[name] for name in request.outputs})
        check_request(request)
        inputs = request.inputs
        if request.model_name == "text_encoder":
            return InferResponse({"text_embedding": self._embed_text(inputs)})
        if request.model_name == "vision_encoder":
            return InferResponse({"image_embedding": self._embed_image(inputs)})
        parts = [inputs[name] for name in ("text_embedding", "image_embedding") if name in inputs]
        if "input_ids" in inputs:
            parts.append(self._embed_text(inputs))
        if "pixel_values" in inputs:
            parts.append(self._embed_image(inputs))
        cosines = np.mean([(inputs["query_embedding"] * part).sum(axis=1, keepdims=True) for part in parts], axis=0)
        logits = (LOGIT_SCALE * cosines).astype(np.float32)
        outputs = {"relevance_score": 1 / (1 + np.exp(-logits)), "logits": logits}
        return InferResponse({name: outputs[name] for name in request.outputs})

    def _embed_text(self, inputs: Mapping[str, Tensor]) -> Embedding:
        return embed_text(inputs["input_ids"], inputs["attention_mask"], self.weights)

    def _embed_image(self, inputs: Mapping[str, Tensor]) -> Embedding:
        return embed_image(inputs["pixel_values"], self.weights)


def check_request(request: InferRequest) -> None:
    """Refuse what a real server would refuse.

    Raises:
        ModelNotReadyError: There is no such model.
        RequestRejectedError: A tensor's name, dtype or shape is wrong, or the batch is over the limit.
    """
    name = request.model_name
    if name not in _INPUTS:
        raise ModelNotReadyError(f"unknown model {name}", model_name=name)
    batch_sizes = {tensor.shape[0] for tensor in request.inputs.values()}
    if set(request.inputs) != _INPUTS[name] or len(batch_sizes) != 1:
        raise RequestRejectedError(f"inputs {sorted(request.inputs)} with batches {batch_sizes}", model_name=name)
    if max(batch_sizes) > MANIFEST["max_batch_size"][name]:
        raise RequestRejectedError(f"batch {batch_sizes} is over the limit", model_name=name)
    for input_name, tensor in request.inputs.items():
        if tensor.dtype != _DTYPES[input_name] or not _has_valid_shape(input_name, tensor):
            raise RequestRejectedError(f"{input_name} is {tensor.dtype} {tensor.shape}", model_name=name)


def _has_valid_shape(input_name: str, tensor: Tensor) -> bool:
    if input_name == "pixel_values":
        return tensor.shape[1:] == (3, 224, 224)
    if input_name.endswith("_embedding"):
        return tensor.shape[1:] == (EMBEDDING_DIM,)
    return tensor.ndim == 2 and tensor.shape[1] in MANIFEST["text"]["buckets"]


def embed_text(input_ids: Tensor, attention_mask: Tensor, weights: int = 0) -> Embedding:
    """Return float32, (batch_size, EMBEDDING_DIM): texts with the same bytes are close, whatever the padding."""
    table = np.random.default_rng(weights).standard_normal((VOCABULARY_SIZE, EMBEDDING_DIM))
    return _normalize((table[input_ids] * attention_mask[:, :, None]).sum(axis=1))


def embed_image(pixel_values: Tensor, weights: int = 0) -> Embedding:
    """Return float32, (batch_size, EMBEDDING_DIM): images with the same mean colour are close."""
    means = pixel_values.mean(axis=(2, 3)) / 255 - 0.5  # (batch_size, 3)
    features = np.concatenate([means, np.ones((len(means), 1))], axis=1)  # (batch_size, 4)
    return _normalize(features @ np.random.default_rng(weights + 1).standard_normal((4, EMBEDDING_DIM)))


def _normalize(vectors: npt.NDArray[np.float64]) -> Embedding:
    normalized: Embedding = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return normalized


def make_tokenizer_json() -> str:
    """Return a tokenizer with one token per byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer.to_str()
