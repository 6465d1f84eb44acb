"""What the fake server says and computes as a model with late interaction: vectors of tokens, and their MaxSim."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from lychee_client.transports.base import InferRequest, InferResponse, Request

DIM: Final = 8
QUERY_TOKENS: Final = 12
QUERY_MARKER: Final = 300
DOCUMENT_MARKER: Final = 301
FILL: Final = 3
DOT: Final = 17
"""The token of a full stop."""
LATE_MANIFEST: Final[dict[str, Any]] = {
    "pipeline": "late_interaction",
    "embedding_dim": DIM,
    "image": None,
    "text": {
        "query_prefix": "",
        "document_prefix": "",
        "pad_token_id": 1,
        "max_tokens": 32,
        "buckets": [16, 32],
    },
    "late_interaction": {
        "kind": "marks",
        "query_marker": QUERY_MARKER,
        "document_marker": DOCUMENT_MARKER,
        "query_tokens": QUERY_TOKENS,
        "fill_token_id": FILL,
        "skipped_token_ids": [1, DOT],
        "max_documents": 5,
    },
    "max_batch_size": {"text_encoder": 4, "scoring_head": 4, "rerank_text": 4},
}
EDGE: Final = 8
"""Of an image, in pixels: it is one tile, which four tokens stand for."""
PAGES_MANIFEST: Final[dict[str, Any]] = LATE_MANIFEST | {
    "image": {
        "kind": "tiles",
        "tile_size": EDGE,
        "max_tiles": 1,
        "tile_tokens": 4,
        "resample": "bicubic",
        "embedding_dim": 5,
    },
    "max_img_size": EDGE,
    "text": LATE_MANIFEST["text"] | {"query_prefix": "q: "},
    "late_interaction": {
        "kind": "pages",
        "query_tokens": QUERY_TOKENS,
        "query_suffix": "++",
        "page": "a #page",
        "image_token": "#",
        "max_documents": 5,
    },
    "max_batch_size": {"text_encoder": 4, "image_encoder": 2, "scoring_head": 4, "rerank_text": 4, "rerank_image": 2},
}


def answer(request: Request) -> InferResponse | None:
    """Answer as encoder and head do; None to what is asked of other models. To be a FakeTransport's `intercept`."""
    if not isinstance(request, InferRequest):
        return None
    if request.model_name == "image_encoder":
        shade = request.inputs["pixel_values"][:, 0, 0, 0, :1].astype(np.int64)  # (rows, 1)
        return InferResponse({"token_embeddings": embed((request.inputs["input_ids"] + shade) % QUERY_MARKER)[:, None]})
    if request.model_name == "text_encoder":
        return InferResponse({"token_embeddings": embed(request.inputs["input_ids"])[:, None]})
    if request.model_name == "scoring_head":
        query, documents = (request.inputs[name].astype(np.float32) for name in request.inputs)
        logits = np.einsum("bqd,bnsd->bnsq", query[:, 0], documents).max(2).sum(-1)
        return InferResponse({"relevance_score": ((1 + logits / query.shape[2]) / 2).clip(0, 1), "logits": logits})
    return None


def embed(ids: Any) -> Any:
    """Return a vector of unit length for every token: float16, one axis more."""
    table = np.random.default_rng(0).standard_normal((DOCUMENT_MARKER + 1, DIM))
    return (table / np.linalg.norm(table, axis=1, keepdims=True)).astype(np.float16)[ids]
