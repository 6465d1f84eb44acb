"""ColBERT: BERT and a linear layer make a vector of every token, and MaxSim compares a query's with a document's.

Each vector of the query takes the largest of its cosines with the document's vectors; ``logits`` is their sum, as the
authors have it. ``relevance_score`` is (1 + logits / query_tokens) / 2: the mean of those cosines, mapped from [-1, 1]
to [0, 1]. It keeps the order, and means the same for every length of a query.

A query is [CLS] [Q] tokens [SEP] and masks up to its full length; the masks' vectors count, although no token reads
them. A document is [CLS] [D] tokens [SEP]; the vectors of punctuation do not count.

Source: colbert-ai 0.2.22, colbert/modeling/ (colbert.py, hf_colbert.py, tokenization) and infra/config/settings.py.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from lychee_client.manifest import CheckpointLimits, GoldenInput, GoldenPair, LateInteractionSpec, ModelSpec
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel, BertPreTrainedModel

from lychee_export.checkpoint.json_files import read_object
from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.contract.limits import Limits
from lychee_export.contract.signature import SCORE_OUTPUTS, Axis, ModelSignature, Tensors, TensorSpec
from lychee_export.errors import CheckpointError
from lychee_export.families.attention import attention_bias
from lychee_export.families.family import Checkpoint, Family, ModelCard, Piece, Reference, round_score, round_scores
from lychee_export.families.maxsim import MaxSim
from lychee_export.families.samples import QUERIES, TEXTS
from lychee_export.families.text_format import TextFormat, plain_tokenizer, text_buckets

__all__ = ["FAMILY", "TokenEncoder", "load"]

_SETTINGS = "artifact.metadata"
_ARCHITECTURE = "HF_ColBERT"
_TOKENS_PER_RUN = 4096
_MAX_DOCUMENTS = 512
_LEAST_TOKENS = 4
"""Of a query: the first, the marker, one of its own and the last."""
_MASKED = -9999.0
"""What the authors take for the cosine with a token that does not count."""
_GOLDEN_PAIRS = ((0, 1), (0, 6), (1, 2), (2, 0), (3, 5), (4, 4))
"""Indices of (query, text)."""


@dataclass(frozen=True)
class Settings:
    """What ``artifact.metadata`` says; the defaults are the authors'.

    Args:
        dim: The length of a vector.
        query_maxlen: The length of a query in tokens.
        doc_maxlen: The length of the longest document in tokens.
        mask_punctuation: Whether the vectors of a document's punctuation do not count.
        attend_to_mask_tokens: Whether a query's tokens read the masks that fill it.
        query_token_id: The token that marks a query.
        doc_token_id: The token that marks a document.
        similarity: What compares two vectors.
    """

    dim: int = 128
    query_maxlen: int = 32
    doc_maxlen: int = 220
    mask_punctuation: bool = True
    attend_to_mask_tokens: bool = False
    query_token_id: str = "[unused0]"
    doc_token_id: str = "[unused1]"
    similarity: str = "cosine"

    @classmethod
    def read(cls, source: CheckpointSource) -> Settings:
        """Read the checkpoint's settings.

        Raises:
            CheckpointError: There are none, a value has another type, or it asks for something that is not computed
                here.
        """
        path = source.folder / _SETTINGS
        content = read_object(path)
        if not content:
            raise CheckpointError(
                f"{path} is missing or empty; it says how long queries and documents are and which tokens mark them. "
                "Take it from the checkpoint's authors"
            )
        found = {}
        for name, default in vars(cls()).items():
            value = content.get(name, default)
            if type(value) is not type(default):
                raise CheckpointError(f"{path}: {name} is {value!r}, expected a {type(default).__name__}")
            found[name] = value
        settings = cls(**found)
        if settings.similarity != "cosine":
            raise CheckpointError(f"{path}: similarity is {settings.similarity!r}; only 'cosine' is supported")
        if settings.query_maxlen < _LEAST_TOKENS or settings.dim < 1:
            raise CheckpointError(
                f"{path}: query_maxlen is {settings.query_maxlen} and dim {settings.dim}; expected at least "
                f"{_LEAST_TOKENS} and 1"
            )
        return settings


class _ColbertModel(BertPreTrainedModel):  # type: ignore[no-untyped-call]
    """BERT and the linear layer, under the names that the authors' files have."""

    dim = 0

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        self.linear = nn.Linear(config.hidden_size, self.dim, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]


class TokenEncoder(nn.Module):
    """Make a vector of unit length of every token.

    Args:
        model: BERT and the linear layer; its weights are shared, not copied.
        query_marker: The token that stands second in queries.
        skipped: The tokens of documents whose vectors do not count.
    """

    def __init__(self, model: Any, query_marker: int, skipped: Sequence[int]) -> None:
        super().__init__()
        self.embeddings, self.encoder, self.linear = model.bert.embeddings, model.bert.encoder, model.linear
        self.query_marker = query_marker
        counts = torch.ones(model.config.vocab_size, dtype=torch.int64, device="cpu")
        counts[list(skipped)] = 0
        self.counts = counts  # no buffer: it is there on the meta device too

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode queries and documents.

        Args:
            input_ids: int64, (batch_size, sequence_length).
            attention_mask: int64, (batch_size, sequence_length), 1 for a token that the others read.

        Returns:
            float16, (batch_size, 1, sequence_length, dim). Where a document's token does not count, the vector of its
            first token stands a second time, which changes no maximum; so does it where there is padding.
        """
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        types = torch.zeros_like(input_ids)
        hidden = self.embeddings(input_ids=input_ids, token_type_ids=types, position_ids=positions)
        bias = attention_bias(attention_mask, self.embeddings.word_embeddings.weight.dtype)
        hidden = self.encoder(hidden, attention_mask=bias).last_hidden_state
        vectors = functional.normalize(self.linear(hidden).float(), dim=-1)  # (batch_size, sequence_length, dim)
        counts = self.counts.to(input_ids.device)[input_ids] * attention_mask  # (batch_size, sequence_length)
        is_query = input_ids[:, 1:2] == self.query_marker  # (batch_size, 1)
        kept = (counts > 0) | is_query
        return torch.where(kept[..., None], vectors, vectors[:, :1]).half()[:, None]


def load(source: CheckpointSource, limits: Limits) -> Checkpoint:
    """Load a ColBERT checkpoint.

    Raises:
        CheckpointError: A file is missing or damaged, or does not fit the others; the checkpoint asks for something
            that is not computed here.
    """
    settings = Settings.read(source)
    model: Any = source.load_model(type(_ARCHITECTURE, (_ColbertModel,), {"dim": settings.dim}))
    config = model.config
    positions = getattr(config, "position_embedding_type", None) or "absolute"
    if positions != "absolute" or config.is_decoder:
        raise CheckpointError(
            f"{source.folder / 'config.json'}: position_embedding_type is {positions!r} and is_decoder "
            f"{config.is_decoder}, expected 'absolute' and False; other models are not supported"
        )
    tokenizer = source.load_tokenizer()
    plain = plain_tokenizer(source, tokenizer, config.vocab_size)
    longest = settings.doc_maxlen, config.max_position_embeddings, tokenizer.model_max_length
    text = TextFormat(
        vocab_size=config.vocab_size,
        pad_token_id=tokenizer.pad_token_id,
        buckets=text_buckets(source, limits, *longest),
    )
    if settings.query_maxlen > text.max_tokens:
        raise CheckpointError(
            f"{source.folder / _SETTINGS}: query_maxlen is {settings.query_maxlen}, and texts have at most "
            f"{text.max_tokens} tokens here; export with a larger --max-tokens, or take another checkpoint"
        )
    late = _read_tokens(source, tokenizer, settings)
    encoder = TokenEncoder(model, late.query_marker, late.skipped_token_ids)
    pieces, ensemble = _sign(settings.dim, late, limits, text, encoder)
    spec = ModelSpec(
        family=FAMILY.name,
        pipeline="late_interaction",
        model_id=source.model_id,
        revision=source.revision,
        embedding_dim=settings.dim,
        text=text.spec,
        late_interaction=late,
        checkpoint_limits=CheckpointLimits(min(longest)),
    )

    def make_reference() -> Reference:
        return _Judge(model, tokenizer, late, text).make_reference(ensemble)

    return Checkpoint(ModelCard(spec, (ensemble,), plain.to_str(), sigmoid=False), pieces, make_reference)


def _read_tokens(source: CheckpointSource, tokenizer: Any, settings: Settings) -> LateInteractionSpec:
    """Look up the tokens that the settings name.

    Raises:
        CheckpointError: The tokenizer lacks one, or texts do not begin and end with one token each.
    """
    markers = []
    for marker in (settings.query_token_id, settings.doc_token_id):
        found = tokenizer.convert_tokens_to_ids(marker)
        if found is None or found == tokenizer.unk_token_id:
            raise CheckpointError(
                f"{source.folder / _SETTINGS} names the token {marker!r}, which the tokenizer lacks; take both from "
                "one checkpoint"
            )
        markers.append(int(found))
    if tokenizer.mask_token_id is None:
        raise CheckpointError(
            f"the tokenizer in {source.folder} has no mask token, which fills queries; set mask_token"
        )
    ends = [tokenizer.cls_token_id, tokenizer.sep_token_id]
    if tokenizer("")["input_ids"] != ends:
        raise CheckpointError(
            f"the tokenizer in {source.folder} makes {tokenizer('')['input_ids']} of an empty text, expected "
            f"{tokenizer.cls_token!r} and {tokenizer.sep_token!r} ({ends}): the marker stands after the first token"
        )
    skipped = {tokenizer.pad_token_id}
    if settings.mask_punctuation:
        skipped |= {tokenizer.encode(symbol, add_special_tokens=False)[0] for symbol in string.punctuation}
    return LateInteractionSpec(
        query_marker=markers[0],
        document_marker=markers[1],
        query_tokens=settings.query_maxlen,
        fill_token_id=tokenizer.mask_token_id,
        attends_to_fill=settings.attend_to_mask_tokens,
        skipped_token_ids=tuple(sorted(skipped)),
        max_documents=_MAX_DOCUMENTS,
    )


def _sign(
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
        tensors["attention_mask"][:, :_LEAST_TOKENS] = 1
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


@dataclass(frozen=True)
class _Judge:
    """The authors' computation with transformers' BERT, in float32 throughout.

    Args:
        model: BERT and the linear layer.
        tokenizer: The checkpoint's tokenizer, as transformers loads it.
        late: What is known of the tokens.
        text: How texts are made.
    """

    model: Any
    tokenizer: Any
    late: LateInteractionSpec
    text: TextFormat

    def make_reference(self, ensemble: ModelSignature) -> Reference:
        """Compute the rows for validation and the golden pairs."""
        queries, documents = self.tokenize_queries(QUERIES), self.tokenize_documents(TEXTS, self._find_bucket())
        vectors = self._embed(queries)  # (queries, query_tokens, dim)
        count = np.arange(len(TEXTS))
        grid = [axis.ravel() for axis in np.indices((len(QUERIES), len(TEXTS)))]
        scored: Tensors = {f"query_{name}": value[grid[0]] for name, value in queries.items()}
        scored |= {name: value[grid[1]] for name, value in documents.items()}
        whole = self.tokenize_documents(TEXTS, self.text.max_tokens)
        scores = self._score(vectors, whole)
        golden = [(GoldenInput(QUERIES[q]), GoldenInput(TEXTS[d]), scores[q, d]) for q, d in _GOLDEN_PAIRS]
        return Reference(
            {ensemble.name: {"query_embeddings": vectors[count % len(QUERIES), None].half().numpy()} | documents},
            tuple(GoldenPair(query, document, round_score(float(score))) for query, document, score in golden),
            {ensemble.name: scored | {"relevance_score": round_scores(self._score(vectors, documents).reshape(-1, 1))}},
        )

    def tokenize_queries(self, queries: Sequence[str]) -> Tensors:
        """Put a marker into each query, and masks up to its length."""
        tokens = self._tokenize(queries, self.late.query_marker, self.late.query_tokens, self.late.query_tokens)
        empty = tokens["input_ids"] == self.tokenizer.pad_token_id
        tokens["input_ids"][empty] = self.late.fill_token_id
        if self.late.attends_to_fill:
            tokens["attention_mask"][:] = 1
        return tokens

    def tokenize_documents(self, documents: Sequence[str], length: int) -> Tensors:
        """Put a marker into each document, and pad it to a length."""
        return self._tokenize(documents, self.late.document_marker, self.text.max_tokens, length)

    def _score(self, queries: Tensor, tokens: Tensors) -> NDArray[np.float32]:
        """Return the mean of each query's largest cosines with each document, from 0 to 1: (queries, documents)."""
        skipped = torch.from_numpy(np.isin(tokens["input_ids"], self.late.skipped_token_ids))
        cosines = torch.einsum("qtd,nsd->qnst", queries, self._embed(tokens))
        largest = cosines.masked_fill(skipped[None, ..., None], _MASKED).amax(2)  # (queries, documents, query_tokens)
        scores: NDArray[np.float32] = ((1 + largest.mean(-1)) / 2).numpy()
        return scores

    def _find_bucket(self) -> int:
        """Return the length that holds all samples, or the second largest, so that their padding can be tested."""
        buckets = self.text.buckets[:-1] or self.text.buckets
        longest = max(len(self.tokenizer(text)["input_ids"]) + 1 for text in TEXTS)
        return next((bucket for bucket in buckets if bucket >= longest), buckets[-1])

    def _tokenize(self, texts: Sequence[str], marker: int, longest: int, length: int) -> Tensors:
        """Tokenize as the authors do: to one token less, and the marker comes in after the first."""
        options = {"padding": "max_length", "truncation": True, "max_length": min(longest, length) - 1}
        encoded = self.tokenizer(list(texts), return_tensors="np", **options)
        marked = {"input_ids": marker, "attention_mask": 1}
        return {name: np.insert(encoded[name].astype(np.int64), 1, value, axis=1) for name, value in marked.items()}

    @torch.no_grad()
    def _embed(self, tokens: Tensors) -> Tensor:
        """Return float32, (batch_size, sequence_length, dim), rows of unit length."""
        ids, mask = (torch.from_numpy(tokens[name]) for name in ("input_ids", "attention_mask"))
        return functional.normalize(
            self.model.linear(self.model.bert(ids, attention_mask=mask).last_hidden_state), dim=-1
        )


FAMILY = Family(
    name="colbert",
    model_types=("bert",),
    load=load,
    checkpoints=("colbert-ir/colbertv2.0", "answerdotai/answerai-colbert-small-v1"),
    architectures=(_ARCHITECTURE,),
)
