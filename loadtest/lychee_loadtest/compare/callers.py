"""How each contestant is called: JPEG bytes and texts in, one score for each document out."""

from __future__ import annotations

import base64
import http.client
import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
from lychee_client import Image, LycheeClient, RerankOptions
from tritonclient.grpc import InferenceServerClient, InferInput

from lychee_loadtest.payloads import to_data_url

from .documents import Call, Document

__all__ = ["Caller", "FastApiCaller", "GatewayCaller", "InfinityCaller", "LycheeCaller", "PyTritonCaller", "Scores"]

Scores = npt.NDArray[np.float64]
"""float64, (documents,), in the documents' order; only ever compared with each other."""

_TIMEOUT_S: Final = 120.0


class Caller(Protocol):
    """Ranks with one contestant. Safe to use from several threads."""

    def rank(self, call: Call) -> Scores:
        """Score every document."""


class JsonConnection:
    """JSON over HTTP to one server, one kept-alive connection for each thread.

    Args:
        port: The port on which the server listens, on the loopback interface.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._local = threading.local()

    def get(self, path: str) -> int:
        """Return the status of a page."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT_S)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        finally:
            connection.close()

    def post(self, path: str, body: object) -> Any:
        """Send a body and return the answer.

        Raises:
            RuntimeError: The status is not 200.
        """
        content = json.dumps(body).encode()
        try:
            status, answer = self._send(path, content)
        except (ConnectionError, http.client.RemoteDisconnected):  # the server closed a connection that was idle
            self._local.connection.close()
            status, answer = self._send(path, content)
        if status != http.client.OK:
            raise RuntimeError(f"POST {path}: status {status}, expected 200: {answer[:300]!r}")
        return json.loads(answer)

    def _send(self, path: str, content: bytes) -> tuple[int, bytes]:
        if not hasattr(self._local, "connection"):
            self._local.connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT_S)
        connection: http.client.HTTPConnection = self._local.connection
        connection.request("POST", path, content, {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()


class FastApiCaller:
    """The FastAPI service."""

    def __init__(self, connection: JsonConnection) -> None:
        self._connection = connection

    def rank(self, call: Call) -> Scores:
        """Score every document."""
        documents = [
            {"text": document} if isinstance(document, str) else {"image": to_base64(document)}
            for document in call.documents
        ]
        answer = self._connection.post("/rerank", {"query": call.query, "documents": documents})
        return np.array(answer["scores"], np.float64)


class InfinityCaller:
    """The Infinity server's embeddings, ranked here. Photos take two requests, which are sent at the same time."""

    def __init__(self, connection: JsonConnection, model: str) -> None:
        self._connection = connection
        self._model = model
        self._pool = ThreadPoolExecutor(32, thread_name_prefix="infinity-query")

    def rank(self, call: Call) -> Scores:
        """Score every document."""
        texts = [document for document in call.documents if isinstance(document, str)]
        if texts:
            embeddings = self._embed("text", [call.query, *texts])
            return cosines(embeddings[0], embeddings[1:])
        query = self._pool.submit(self._embed, "text", [call.query])
        photos = [to_data_url(document) for document in call.documents if isinstance(document, bytes)]
        documents = self._embed("image", photos)
        return cosines(query.result()[0], documents)

    def _embed(self, modality: str, inputs: Sequence[str]) -> npt.NDArray[np.float32]:
        body = {"model": self._model, "input": inputs, "modality": modality, "encoding_format": "base64"}
        answer = self._connection.post("/embeddings", body)
        rows = [np.frombuffer(base64.b64decode(entry["embedding"]), np.float32) for entry in answer["data"]]
        return np.stack(rows)


class PyTritonCaller:
    """PyTriton's two models over gRPC, ranked here. Query and documents are sent at the same time."""

    def __init__(self, client: InferenceServerClient, max_batch_size: int) -> None:
        self._client = client
        self._max_batch_size = max_batch_size

    def rank(self, call: Call) -> Scores:
        """Score every document."""
        sent = [self._send("text", [call.query])]
        kind = "text" if isinstance(call.documents[0], str) else "image"
        for start in range(0, len(call.documents), self._max_batch_size):
            sent.append(self._send(kind, call.documents[start : start + self._max_batch_size]))
        query, *documents = [handle.get_result().as_numpy("embedding") for handle in sent]
        return cosines(query[0], np.concatenate(documents))

    def _send(self, model: str, documents: Sequence[Document]) -> Any:
        rows = [[document.encode() if isinstance(document, str) else document] for document in documents]
        tensor = InferInput(model, [len(rows), 1], "BYTES")
        tensor.set_data_from_numpy(np.array(rows, np.object_))
        answered: Any = Answer()
        self._client.async_infer(model, [tensor], answered.set)
        return answered


class Answer:
    """What a request will have been answered with."""

    def __init__(self) -> None:
        self._done = threading.Event()
        self._outcome: tuple[Any, Any] = (None, None)

    def set(self, result: Any, error: Any) -> None:
        """Take the answer, or the error."""
        self._outcome = (result, error)
        self._done.set()

    def get_result(self) -> Any:
        """Wait for the answer.

        Raises:
            RuntimeError: There is none.
        """
        if not self._done.wait(_TIMEOUT_S):
            raise RuntimeError(f"PyTriton did not answer in {_TIMEOUT_S:g} s")
        result, error = self._outcome
        if error is not None:
            raise RuntimeError(f"PyTriton answered with an error: {error}")
        return result


class LycheeCaller:
    """The SDK of this project over gRPC.

    Args:
        client: The SDK's client of a running server.
        options: The options of every call; among them is a timeout of 120 s unless they set another one.
    """

    def __init__(self, client: LycheeClient, options: RerankOptions | None = None) -> None:
        self._client = client
        self._options: RerankOptions = {"timeout_s": _TIMEOUT_S, **(options or {})}

    def rank(self, call: Call) -> Scores:
        """Score every document."""
        documents = [
            document if isinstance(document, str) else Image.from_bytes(document) for document in call.documents
        ]
        response = self._client.rerank(call.query, documents, **self._options)
        if response.errors:
            raise RuntimeError(f"{len(response.errors)} documents failed: {response.errors[0].message}")
        scores = np.empty(len(documents))
        for result in response.results:
            scores[result.index] = result.logit
        return scores


class GatewayCaller:
    """The REST API of this project."""

    def __init__(self, connection: JsonConnection) -> None:
        self._connection = connection

    def rank(self, call: Call) -> Scores:
        """Score every document."""
        documents = [
            document if isinstance(document, str) else {"image": to_data_url(document)} for document in call.documents
        ]
        answer = self._connection.post("/v1/rerank", {"query": call.query, "documents": documents})
        scores = np.full(len(documents), np.nan)
        for result in answer["results"]:
            probability = min(max(result["relevance_score"], 1e-12), 1 - 1e-12)
            scores[result["index"]] = np.log(probability / (1 - probability))
        if np.isnan(scores).any():
            raise RuntimeError(f"{np.isnan(scores).sum()} of {len(scores)} documents have no score: {answer['errors']}")
        return scores


def cosines(query: npt.NDArray[np.float32], documents: npt.NDArray[np.float32]) -> Scores:
    """Return the cosine of a query, (D,), and each document, (documents, D), all of unit length."""
    scores: Scores = (documents @ query).astype(np.float64)
    return scores


def to_base64(data: bytes) -> str:
    """Return bytes as JSON can hold them."""
    return base64.b64encode(data).decode("ascii")
