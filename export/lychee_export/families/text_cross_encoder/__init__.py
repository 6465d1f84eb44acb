"""Text cross-encoders: BERT, RoBERTa, XLM-RoBERTa, ModernBERT, GTE and DeBERTa with a classification head of one label.

Query and document are one sequence, [CLS] query [SEP] document [SEP], and the score is the sigmoid of the one logit, as
sentence-transformers' CrossEncoder computes it. Some checkpoints say that their score is the logit itself (ms-marco):
that is the export's ``logits``, and the sigmoid keeps its order. A document that is too long loses its last tokens, and
too long a query is refused: what a CrossEncoder ("longest_first") does too wherever the query is the shorter part.

Token types are made in the graph, of the first separator's place, so nothing but ids and mask travels.

Source: transformers 5.23.0, models/bert, models/roberta, models/xlm_roberta, models/modernbert, models/gte and
models/deberta_v2; sentence-transformers 6.2.0, cross_encoder/model.py. ``checkpoint.authors_code`` has the sources of
what transformers knows under other names.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from tokenizers import Tokenizer

from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.contract.limits import Limits
from lychee_export.errors import CheckpointError
from lychee_export.families.family import Checkpoint, Family, ModelCard, Reference
from lychee_export.families.samples import QUERIES, TEXTS
from lychee_export.families.text_cross_encoder.bert import find_token_types
from lychee_export.families.text_cross_encoder.checks import check_config, describe_activation
from lychee_export.families.text_cross_encoder.kinds import KINDS
from lychee_export.families.text_format import check_normalizer, plain_tokenizer
from lychee_export.families.text_pairs import (
    describe_text_pairs,
    format_pairs,
    prompt_of_texts,
    refer_to_texts,
    sign_text_pairs,
)

__all__ = ["FAMILY", "load"]


def load(source: CheckpointSource, limits: Limits) -> Checkpoint:
    """Load a text cross-encoder.

    Raises:
        CheckpointError: A file is missing or damaged, or does not fit the others; the checkpoint is no reranker of one
            label, or asks for something that is not computed here.
    """
    kind = KINDS[source.config["model_type"]]
    activation = check_config(source, kind.model_class.__name__, FAMILY.checkpoints)
    model: Any = source.load_model(kind.model_class)
    config = model.config
    tokenizer = source.load_tokenizer(file_alone=kind.file_alone)
    plain = plain_tokenizer(source, tokenizer, config.vocab_size)
    check_normalizer(source, plain)
    middle = _find_separator(source, tokenizer, plain)
    longest = config.max_position_embeddings - kind.skipped_positions(config), tokenizer.model_max_length
    text = format_pairs(source, limits, config.vocab_size, tokenizer.pad_token_id, *longest, buckets=kind.buckets)
    typed = "token_type_ids" in tokenizer("a", "a") and getattr(config, "type_vocab_size", 0) > 1
    encoder = kind.make_encoder(model, tokenizer.sep_token_id if typed else None)
    pieces, ensemble = sign_text_pairs(config.hidden_size, limits, text, encoder, kind.make_head(model))
    prompt = prompt_of_texts(f"{{query}}{middle}{{document}}")
    spec = describe_text_pairs(source, FAMILY.name, text, prompt, min(longest))
    tokenizer_json = plain.to_str()

    def make_reference() -> Reference:
        def score(pairs: Sequence[tuple[str, str]]) -> list[float]:
            return _score(model, tokenizer, text.max_tokens, pairs)

        def fill(query: str, document: str) -> str:
            return query + middle + document

        return refer_to_texts(ensemble, text, tokenizer_json, fill, score, describe_activation(activation))

    return Checkpoint(ModelCard(spec, (ensemble,), tokenizer_json), pieces, make_reference)


def _find_separator(source: CheckpointSource, tokenizer: Any, plain: Tokenizer) -> str:
    """Return the tokens between query and document, written out: with them one text has the tokens of a pair.

    Raises:
        CheckpointError: No number of separators does it, or the token types of a pair are of another kind.
    """
    samples = list(product(QUERIES, TEXTS))
    expected = [tokenizer(query, text) for query, text in samples]
    for middle in (tokenizer.sep_token, 2 * (tokenizer.sep_token or "")):
        if middle and all(
            plain.encode(query + middle + text).ids == pair["input_ids"]
            for (query, text), pair in zip(samples, expected, strict=True)
        ):
            break
    else:
        raise CheckpointError(
            f"the tokenizer in {source.folder} joins 'a' and 'b' to "
            f"{tokenizer.convert_ids_to_tokens(tokenizer('a', 'b')['input_ids'])}; expected one or two separators "
            f"({tokenizer.sep_token!r}) between them and each text tokenized by itself. Take the tokenizer.json of the "
            "checkpoint's authors"
        )
    for pair in expected:
        types = pair.get("token_type_ids")
        made = find_token_types(torch.tensor([pair["input_ids"]]), tokenizer.sep_token_id)[0].tolist()
        if types is not None and any(types) and types != made:
            raise CheckpointError(
                f"the tokenizer in {source.folder} gives a pair the token types {types}, expected {made}; take the "
                "tokenizer.json of the checkpoint's authors"
            )
    return middle


@torch.no_grad()
def _score(model: Any, tokenizer: Any, max_tokens: int, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """Score pairs with transformers alone."""
    scores = []
    for query, document in pairs:
        inputs = tokenizer(query, document, return_tensors="pt", truncation="only_second", max_length=max_tokens)
        scores.append(float(torch.sigmoid(model(**inputs).logits[0, 0])))
    return scores


FAMILY = Family(
    name="text_cross_encoder",
    model_types=tuple(KINDS),
    load=load,
    checkpoints=(
        "cross-encoder/ms-marco-MiniLM-L6-v2",
        "BAAI/bge-reranker-v2-m3",
        "Alibaba-NLP/gte-reranker-modernbert-base",
        "jinaai/jina-reranker-v2-base-multilingual",
        "Alibaba-NLP/gte-multilingual-reranker-base",
        "mixedbread-ai/mxbai-rerank-base-v1",
    ),
)
