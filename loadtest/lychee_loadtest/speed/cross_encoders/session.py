"""The exported files in ONNX Runtime sessions of this process: the limit for what serving may cost.

Prompts, lengths and batches are the client's, runs are those of the server's backend, the encoder is executed as
there. There is no server, no request and no queue; one call at a time.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Final

import numpy as np
from lychee_client.manifest import parse_manifest
from lychee_client.preprocessing.prompt import Part, PromptProcessor
from lychee_client.preprocessing.text import TokenizedText
from lychee_client.repository import ASSETS_MODEL, MODEL_FILENAME, newest_version, read_config

from lychee_loadtest.compare.callers import Scores
from lychee_loadtest.compare.documents import Call
from lychee_loadtest.execution import open_session

__all__ = ["SessionCaller"]

_ENCODER: Final = "text_encoder"
_HEAD: Final = "scoring_head"


class SessionCaller:
    """Ranks in this process.

    Args:
        repository: The exported repository of a text cross-encoder.
        execution: What executes the encoder, as a server says it.
    """

    def __init__(self, repository: Path, execution: str) -> None:
        assets = open_session(_path(repository, ASSETS_MODEL), "cpu-fp32")
        values = dict(zip((node.name for node in assets.get_outputs()), assets.run(None, {}), strict=True))
        manifest = parse_manifest(str(values["manifest"].ravel()[0]))
        assert manifest.prompt is not None  # a cross-encoder's manifest has it
        self._prompts = PromptProcessor(str(values["tokenizer"].ravel()[0]), manifest.text, manifest.prompt)
        self._encoder = open_session(_path(repository, _ENCODER), execution)
        self._head = open_session(_path(repository, _HEAD), "cpu-fp32", threads=1)  # as it is served: more would spin
        config = read_config(repository / _ENCODER)
        self._rows = config.max_batch_size
        self._elements = int(config.parameters["max_run_elements"].string_value)
        self._lock = threading.Lock()

    def rank(self, call: Call) -> Scores:
        """Score every document."""
        with self._lock:
            texts = self._tokenize(call)
            by_length: dict[int, list[int]] = {}
            for index, text in enumerate(texts):
                by_length.setdefault(text.bucket, []).append(index)
            scores = np.empty(len(texts))
            for length, indexes in sorted(by_length.items()):
                step = max(1, min(self._rows, self._elements // length))
                for start in range(0, len(indexes), step):
                    rows = indexes[start : start + step]
                    scores[rows] = self._score([texts[row] for row in rows])
        return scores

    def count_tokens(self, call: Call) -> tuple[int, int]:
        """Return how many tokens the pairs of a call have together, without and with padding."""
        texts = self._tokenize(call)
        return sum(len(text.ids) for text in texts), sum(text.bucket for text in texts)

    def _tokenize(self, call: Call) -> list[TokenizedText]:
        frame = self._prompts.make_frame(Part(call.query), None)
        found = self._prompts.tokenize(frame, [Part(document) for document in call.documents if type(document) is str])
        return [text for text in found if isinstance(text, TokenizedText)]

    def _score(self, texts: list[TokenizedText]) -> Any:
        (hidden,) = self._encoder.run(None, self._prompts.to_tensors(texts))
        (logits,) = self._head.run(["logits"], {"hidden": hidden})
        return logits[:, 0]


def _path(repository: Path, name: str) -> Path:
    return newest_version(repository / name) / MODEL_FILENAME
