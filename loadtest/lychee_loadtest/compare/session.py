"""The exported files in an ONNX Runtime session of this process: the limit for what serving may cost.

Preprocessing is the client's, batches are those that the server runs, each encoder is executed as there. There is no
server, no request and no queue. Every part waits for the one before it, as in a script.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from lychee_client import Image
from lychee_client.manifest import parse_manifest
from lychee_client.preprocessing.text import TextProcessor
from lychee_client.repository import ASSETS_MODEL, MODEL_FILENAME, newest_version, read_config

from lychee_loadtest.execution import open_session

from .callers import Scores, cosines
from .documents import Call

__all__ = ["SessionCaller"]

Array = npt.NDArray[Any]


class SessionCaller:
    """Ranks in this process.

    Args:
        repository: The exported repository of a dual encoder.
        threads: How many threads decode photos; ONNX Runtime takes all cores.
        executions: What executes each encoder, by the encoder's name.
    """

    def __init__(self, repository: Path, threads: int, executions: Mapping[str, str]) -> None:
        assets = open_session(newest_version(repository / ASSETS_MODEL) / MODEL_FILENAME, "cpu-fp32")
        values = dict(zip((node.name for node in assets.get_outputs()), assets.run(None, {}), strict=True))
        manifest = parse_manifest(str(values["manifest"].ravel()[0]))
        assert manifest.image is not None  # a dual encoder's manifest has it
        self._image_spec = manifest.image
        self._texts = TextProcessor(str(values["tokenizer"].ravel()[0]), manifest.text)
        self._text_encoder = _Encoder(repository, "text_encoder", executions)
        self._vision_encoder = _Encoder(repository, "vision_encoder", executions)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="session-decode")

    def rank(self, call: Call) -> Scores:
        """Score every document."""
        texts = [document for document in call.documents if isinstance(document, str)]
        query = self._encode_texts([call.query])
        if texts:
            return cosines(query[0], self._encode_texts(texts))
        images = [Image.from_bytes(document) for document in call.documents if isinstance(document, bytes)]
        prepared = self._pool.map(lambda image: image.prepare(self._image_spec).pixel_values, images)
        return cosines(query[0], self._vision_encoder.run({"pixel_values": np.stack(list(prepared))}))

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Return how many tokens the texts have together, without padding."""
        return sum(len(text.ids) for text in self._texts.tokenize_documents(texts))

    def _encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed texts, in batches of one padded length each, as the client sends them."""
        tokenized = self._texts.tokenize_documents(texts)
        by_length: dict[int, list[int]] = {}
        for index, text in enumerate(tokenized):
            by_length.setdefault(text.bucket, []).append(index)
        embeddings: list[npt.NDArray[np.float32] | None] = [None] * len(texts)
        for indexes in by_length.values():
            rows = self._text_encoder.run(self._texts.to_tensors([tokenized[index] for index in indexes]))
            for index, row in zip(indexes, rows, strict=True):
                embeddings[index] = row
        return np.stack([embedding for embedding in embeddings if embedding is not None])


class _Encoder:
    """One model file, run in the slices in which the server's backend runs it."""

    def __init__(self, repository: Path, name: str, executions: Mapping[str, str]) -> None:
        config = read_config(repository / name)
        path = newest_version(repository / name) / config.default_model_filename
        self._session = open_session(path, executions[name])
        self._max_batch_size = config.max_batch_size
        self._max_run_elements = int(config.parameters["max_run_elements"].string_value)

    def run(self, feed: Mapping[str, Array]) -> npt.NDArray[np.float32]:
        """Return the only output, (rows, D)."""
        return np.concatenate([self._session.run(None, part)[0] for part in self._slice(feed)])

    def _slice(self, feed: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
        rows = len(next(iter(feed.values())))
        largest = max(array.size for array in feed.values()) // rows
        step = max(1, min(self._max_batch_size, self._max_run_elements // largest))
        for start in range(0, rows, step):
            yield {name: array[start : start + step] for name, array in feed.items()}
