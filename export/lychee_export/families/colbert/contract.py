"""The tensors of late interaction: an encoder for queries and documents, a head, and both as an ensemble."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from lychee_client.manifest import LateInteractionSpec
from numpy.typing import NDArray
from torch import nn

from lychee_export.contract.limits import Limits
from lychee_export.contract.signature import SCORE_OUTPUTS, Axis, ModelSignature, Tensors, TensorSpec
from lychee_export.families.colbert.maxsim import MaxSim
from lychee_export.families.colbert.settings import LEAST_TOKENS
from lychee_export.families.family import Piece
from lychee_export.families.text_format import TextFormat

__all__ = ["sign"]

_TOKENS_PER_RUN = 4096


def sign(
    dim: int, late: LateInteractionSpec, limits: Limits, text: TextFormat, encoder: nn.Module
) -> tuple[tuple[Piece, Piece], ModelSignature]:
    """Declare the family's tensor contract."""
    (length,) = text.tensors[0].shape
    query = TensorSpec("query_embeddings", "float16", (1, late.query_tokens, dim))
    documents = Axis("documents", (late.max_documents,))
    batch = limits.text_batch
    encoder_signature = ModelSignature(
        "text_encoder",
        text.tensors,
        (TensorSpec("token_embeddings", "float16", (1, length, dim)),),
        batch,
        encoder=True,
        max_run_elements=max(_TOKENS_PER_RUN, text.max_tokens),
    )
    head_signature = ModelSignature(
        "scoring_head",
        (query, TensorSpec("document_embeddings", "float16", (documents, length, dim))),
        tuple(replace(spec, shape=(documents,)) for spec in SCORE_OUTPUTS),
        batch,
    )
    ensemble = ModelSignature(
        "rerank_text",
        (query, *text.tensors),
        SCORE_OUTPUTS,
        batch,
        steps=(encoder_signature, head_signature),
        names={"token_embeddings": "document_embeddings"},
    )

    def sample_texts(rng: np.random.Generator, rows: int) -> Tensors:
        """Make queries and documents in turn."""
        tensors = text.sample(rng, rows)
        tensors["input_ids"][:, 1] = np.where(np.arange(rows) % 2, late.query_marker, late.document_marker)
        tensors["attention_mask"][:, :LEAST_TOKENS] = 1
        return tensors

    def sample_vectors(rng: np.random.Generator, rows: int) -> Tensors:
        def draw(*shape: int) -> NDArray[np.float16]:
            vectors = rng.standard_normal((rows, *shape, dim))
            unit: NDArray[np.float16] = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float16)
            return unit

        return {"query_embeddings": draw(1, late.query_tokens), "document_embeddings": draw(rows + 1, text.buckets[0])}

    pieces = (
        Piece(encoder_signature, encoder.eval(), sample_texts),
        Piece(head_signature, MaxSim().eval(), sample_vectors),
    )
    return pieces, ensemble
