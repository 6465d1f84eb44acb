"""The tensors of late interaction: an encoder for queries and documents, a head, and both as an ensemble."""

from __future__ import annotations

import numpy as np
from lychee_client.manifest import LateInteractionSpec
from torch import nn

from lychee_export.contract.limits import Limits
from lychee_export.contract.signature import SCORE_OUTPUTS, ModelSignature, Tensors, TensorSpec
from lychee_export.families.colbert.settings import LEAST_TOKENS
from lychee_export.families.family import Piece
from lychee_export.families.maxsim import DOCUMENT_EMBEDDINGS, MaxSim, sample_vectors, sign_max_sim
from lychee_export.families.text_format import TextFormat

__all__ = ["sign"]

_TOKENS_PER_RUN = 4096


def sign(
    dim: int, late: LateInteractionSpec, limits: Limits, text: TextFormat, encoder: nn.Module
) -> tuple[tuple[Piece, Piece], ModelSignature]:
    """Declare the family's tensor contract."""
    (length,) = text.tensors[0].shape
    query = TensorSpec("query_embeddings", "float16", (1, late.query_tokens, dim))
    batch = limits.text_batch
    encoder_signature = ModelSignature(
        "text_encoder",
        text.tensors,
        (TensorSpec("token_embeddings", "float16", (1, length, dim)),),
        batch,
        encoder=True,
        max_run_elements=max(_TOKENS_PER_RUN, text.max_tokens),
    )
    head_signature = sign_max_sim(query, length, late.max_documents, batch)
    ensemble = ModelSignature(
        "rerank_text",
        (query, *text.tensors),
        SCORE_OUTPUTS,
        batch,
        steps=(encoder_signature, head_signature),
        names={"token_embeddings": DOCUMENT_EMBEDDINGS},
    )

    def sample_texts(rng: np.random.Generator, rows: int) -> Tensors:
        """Make queries and documents in turn."""
        tensors = text.sample(rng, rows)
        tensors["input_ids"][:, 1] = np.where(np.arange(rows) % 2, late.query_marker, late.document_marker)
        tensors["attention_mask"][:, :LEAST_TOKENS] = 1
        return tensors

    def sample_head(rng: np.random.Generator, rows: int) -> Tensors:
        return sample_vectors(rng, rows, late.query_tokens, text.buckets[0], dim)

    pieces = (
        Piece(encoder_signature, encoder.eval(), sample_texts),
        Piece(head_signature, MaxSim().eval(), sample_head),
    )
    return pieces, ensemble
