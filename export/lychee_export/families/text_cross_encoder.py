"""Text cross-encoders: BERT, RoBERTa, XLM-RoBERTa and ModernBERT with a classification head of one label.

Query and document are one sequence, [CLS] query [SEP] document [SEP], and the score is the sigmoid of the one logit, as
sentence-transformers' CrossEncoder computes it. Some checkpoints say that their score is the logit itself (ms-marco):
that is the export's ``logits``, and the sigmoid keeps its order. A document that is too long loses its last tokens, and
too long a query is refused: what a CrossEncoder ("longest_first") does too wherever the query is the shorter part.

Token types are made in the graph, of the first separator's place, so nothing but ids and mask travels.

Source: transformers 5.23.0, models/bert, models/roberta, models/xlm_roberta and models/modernbert;
sentence-transformers 6.2.0, cross_encoder/model.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
import transformers
from lychee_client.manifest import CheckpointLimits, GoldenInput, GoldenPair, ModelSpec, PromptSpec, TextSpec
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import (
    BertForSequenceClassification,
    ModernBertForSequenceClassification,
    PreTrainedModel,
    RobertaForSequenceClassification,
    XLMRobertaForSequenceClassification,
)

from lychee_export.checkpoint.refusals import explain_unknown
from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.contract.limits import Limits
from lychee_export.contract.signature import SCORE_OUTPUTS, ModelSignature, Tensors, TensorSpec
from lychee_export.errors import CheckpointError
from lychee_export.families.attention import attention_bias, local_bias
from lychee_export.families.family import Checkpoint, Family, ModelCard, Piece, Reference, round_score
from lychee_export.families.samples import QUERIES, TEXTS
from lychee_export.families.text_format import FINE_BUCKETS, TextFormat, plain_tokenizer, text_buckets, tokenize

__all__ = ["FAMILY", "BertEncoder", "ModernBertEncoder", "RobertaEncoder", "ScoringHead", "load"]

_TOKENS_PER_RUN = 1024
"""A longer pair runs alone. ONNX Runtime's own kernels take 15 % longer for a token in runs of 4,096 than of 512, and
OpenVINO's 2 % (pairs of 128 tokens, bge-reranker-base's shape, one thread of a Zen 4)."""
_GOLDEN_PAIRS = ((0, 1), (0, 6), (1, 2), (2, 0), (3, 5), (4, 4))
"""Indices of (query, text)."""
_DEFAULT_LABELS = 2
"""Where config.json names none, as transformers has it."""
_ACTIVATIONS = ("Identity", "Sigmoid")
_CHANGING_ROPE_TYPES = ("dynamic", "longrope")
"""Their frequencies depend on the sequence's length, which the graph does not compute."""


class BertEncoder(nn.Module):
    """Encode pairs with BERT.

    Args:
        model: The transformers model; its weights are shared, not copied.
        separator: The id of the token between query and document. None where every token has the type 0.
    """

    def __init__(self, model: BertForSequenceClassification, separator: int | None) -> None:
        super().__init__()
        self.embeddings, self.encoder = model.bert.embeddings, model.bert.encoder
        self.separator = separator

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode pairs.

        Args:
            input_ids: int64, (batch_size, sequence_length).
            attention_mask: int64, (batch_size, sequence_length), 1 for a token, 0 for padding.

        Returns:
            The states of the first tokens, float32, (batch_size, hidden_size).
        """
        types = torch.zeros_like(input_ids)
        if self.separator is not None:
            types = find_token_types(input_ids, self.separator)
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        hidden = self.embeddings(input_ids=input_ids, token_type_ids=types, position_ids=positions)
        bias = attention_bias(attention_mask, self.embeddings.word_embeddings.weight.dtype)
        states: Tensor = self.encoder(hidden, attention_mask=bias).last_hidden_state
        return states[:, 0].float()


class RobertaEncoder(nn.Module):
    """Encode pairs with RoBERTa or XLM-RoBERTa, whose positions begin after the padding token's id.

    Args:
        model: The transformers model; its weights are shared, not copied.
    """

    def __init__(self, model: RobertaForSequenceClassification | XLMRobertaForSequenceClassification) -> None:
        super().__init__()
        self.embeddings, self.encoder = model.roberta.embeddings, model.roberta.encoder
        self.first_position = int(model.roberta.embeddings.padding_idx) + 1

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """See `BertEncoder.forward`."""
        places = torch.arange(input_ids.shape[1], device=input_ids.device)[None] + self.first_position
        positions = torch.where(attention_mask > 0, places, self.first_position - 1)
        hidden = self.embeddings(
            input_ids=input_ids, token_type_ids=torch.zeros_like(input_ids), position_ids=positions
        )
        bias = attention_bias(attention_mask, self.embeddings.word_embeddings.weight.dtype)
        states: Tensor = self.encoder(hidden, attention_mask=bias).last_hidden_state
        return states[:, 0].float()


class ModernBertEncoder(nn.Module):
    """Encode pairs with ModernBERT: rotary positions, and most layers see only a window of tokens.

    Args:
        model: A ``ModernBertForSequenceClassification``; its weights are shared, not copied.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        inner, config = model.model, model.config
        self.embeddings, self.layers, self.final_norm = inner.embeddings, inner.layers, inner.final_norm
        self.window = int(config.sliding_window)
        self.means = config.classifier_pooling == "mean"
        rotary = inner.rotary_emb
        # Plain attributes, not buffers: they stay as they are when the module becomes float16.
        self.frequencies = {
            kind: getattr(rotary, f"{kind}_inv_freq").detach().clone() for kind in sorted(set(config.layer_types))
        }
        self.scales = {kind: float(getattr(rotary, f"{kind}_attention_scaling")) for kind in self.frequencies}

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode pairs.

        Args:
            input_ids: int64, (batch_size, sequence_length).
            attention_mask: int64, (batch_size, sequence_length), 1 for a token, 0 for padding.

        Returns:
            The states of the first tokens or the means of all, as the checkpoint wants it; float32, (batch_size,
            hidden_size).
        """
        hidden = self.embeddings(input_ids=input_ids)
        dtype = self.embeddings.tok_embeddings.weight.dtype
        full = attention_bias(attention_mask, dtype)
        masks = {"full_attention": full, "sliding_attention": local_bias(full, self.window)}
        angles = {kind: self._rotate(kind, input_ids) for kind in self.frequencies}
        for layer in self.layers:
            kind = layer.attention_type
            hidden = layer(hidden, attention_mask=masks[kind], position_embeddings=angles[kind])
        states: Tensor = self.final_norm(hidden).float()
        if not self.means:
            return states[:, 0]
        counted = (attention_mask > 0).float()[..., None]  # (batch_size, sequence_length, 1)
        return (states * counted).sum(1) / counted.sum(1)

    def _rotate(self, kind: str, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosine and sine of the rotary angles; float32, (1, sequence_length, head_dim)."""
        places = torch.arange(input_ids.shape[1], device=input_ids.device).float()
        angles = places[None, :, None] * self.frequencies[kind].to(input_ids.device)
        angles = torch.cat([angles, angles], -1)
        return angles.cos() * self.scales[kind], angles.sin() * self.scales[kind]


class ScoringHead(nn.Module):
    """Score pairs: what follows the encoder, then the sigmoid.

    Args:
        pooler: The layers between the encoder's state and the classifier; shared, not copied.
        classifier: The linear layer of one output; shared too.
    """

    def __init__(self, pooler: nn.Module, classifier: nn.Linear) -> None:
        super().__init__()
        self.pooler, self.classifier = pooler, classifier

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Score pairs.

        Args:
            hidden: float32, (batch_size, hidden_size).

        Returns:
            relevance_score, float32, (batch_size, 1), in [0, 1]; logits, the same before the sigmoid, unbounded.
        """
        logits: Tensor = self.classifier(self.pooler(hidden.to(self.classifier.weight.dtype))).float()
        return torch.sigmoid(logits), logits


def find_token_types(input_ids: Tensor, separator: int) -> Tensor:
    """Return 0 up to the first separator and 1 after it: int64, (batch_size, sequence_length)."""
    separators = (input_ids == separator).to(torch.int64)
    return (separators.cumsum(1) - separators > 0).to(torch.int64)


@dataclass(frozen=True)
class _Kind:
    """One architecture: the class of transformers, and how it is split into modules.

    Args:
        model_class: The class.
        make_encoder: Makes the encoder of a model, given the separator's id if its token types differ.
        make_head: Makes the head.
        skipped_positions: Tells how many of the model's positions no token has.
    """

    model_class: type[PreTrainedModel]
    make_encoder: Callable[[Any, int | None], nn.Module]
    make_head: Callable[[Any], nn.Module]
    skipped_positions: Callable[[Any], int] = lambda _: 0


def _head_of_bert(model: Any) -> ScoringHead:
    return ScoringHead(nn.Sequential(model.bert.pooler.dense, nn.Tanh()), model.classifier)


def _head_of_roberta(model: Any) -> ScoringHead:
    return ScoringHead(nn.Sequential(model.classifier.dense, nn.Tanh()), model.classifier.out_proj)


def _roberta(model_class: type[PreTrainedModel]) -> _Kind:
    return _Kind(
        model_class, lambda model, _: RobertaEncoder(model), _head_of_roberta, lambda config: config.pad_token_id + 1
    )


_KINDS = {
    "bert": _Kind(BertForSequenceClassification, BertEncoder, _head_of_bert),
    "modernbert": _Kind(
        ModernBertForSequenceClassification,
        lambda model, _: ModernBertEncoder(model),
        lambda model: ScoringHead(model.head, model.classifier),
    ),
    "roberta": _roberta(RobertaForSequenceClassification),
    "xlm-roberta": _roberta(XLMRobertaForSequenceClassification),
}
"""By ``model_type`` in config.json."""


def load(source: CheckpointSource, limits: Limits) -> Checkpoint:
    """Load a text cross-encoder.

    Raises:
        CheckpointError: A file is missing or damaged, or does not fit the others; the checkpoint is no reranker of one
            label, or asks for something that is not computed here.
    """
    kind = _KINDS[source.config["model_type"]]
    activation = _check_config(source, kind.model_class.__name__)
    model: Any = source.load_model(kind.model_class)
    config = model.config
    tokenizer = source.load_tokenizer()
    plain = plain_tokenizer(source, tokenizer, config.vocab_size)
    _check_normalizer(source, plain)
    middle = _find_separator(source, tokenizer, plain)
    longest = config.max_position_embeddings - kind.skipped_positions(config), tokenizer.model_max_length
    text = TextFormat(
        vocab_size=config.vocab_size,
        pad_token_id=tokenizer.pad_token_id,
        buckets=text_buckets(source, limits, *longest, buckets=FINE_BUCKETS),
    )
    typed = "token_type_ids" in tokenizer("a", "a") and getattr(config, "type_vocab_size", 0) > 1
    encoder = kind.make_encoder(model, tokenizer.sep_token_id if typed else None)
    pieces, ensemble = _sign(config.hidden_size, limits, text, encoder, kind.make_head(model))
    spec = ModelSpec(
        family=FAMILY.name,
        pipeline="cross_encoder",
        model_id=source.model_id,
        revision=source.revision,
        text=TextSpec(pad_token_id=text.pad_token_id, max_tokens=text.max_tokens, buckets=text.buckets),
        prompt=PromptSpec(
            template=f"{{query}}{middle}{{document}}",
            image="",
            image_token="",
            missing_text="",
            suffix_token_ids=(),
            queries=("text",),
            documents=("text",),
        ),
        checkpoint_limits=CheckpointLimits(min(longest)),
    )
    tokenizer_json = plain.to_str()

    def make_reference() -> Reference:
        pairs = [(QUERIES[index % len(QUERIES)], document) for index, document in enumerate(TEXTS)]
        rows = tokenize(tokenizer_json, text, [query + middle + document for query, document in pairs])
        golden = [(QUERIES[query], TEXTS[document]) for query, document in _GOLDEN_PAIRS]
        scores = _score(model, tokenizer, text.max_tokens, golden)
        return Reference(
            {ensemble.name: rows},
            tuple(
                GoldenPair(GoldenInput(query), GoldenInput(document), round_score(score))
                for (query, document), score in zip(golden, scores, strict=True)
            ),
            notes=_describe_activation(activation),
        )

    return Checkpoint(ModelCard(spec, (ensemble,), tokenizer_json), pieces, make_reference)


def _check_config(source: CheckpointSource, expected: str) -> str | None:
    """Refuse what is no reranker of one label or is computed otherwise; return the name of the activation, if any.

    Raises:
        CheckpointError: It is.
    """
    config, place = source.config, source.folder / "config.json"
    architectures = config.get("architectures") or [expected]
    if architectures != [expected] or config.get("auto_map"):
        raise CheckpointError(
            f"{place}: architectures is {architectures}, expected {[expected]} for model_type "
            f"{config['model_type']!r}.{explain_unknown(config)} Take a reranker that transformers itself has, such as "
            f"{', '.join(FAMILY.checkpoints[:3])}"
        )
    labels = config.get("num_labels") or len(config.get("id2label") or range(_DEFAULT_LABELS))
    if labels != 1:
        raise CheckpointError(
            f"{place}: the head has {labels} labels ({config.get('id2label') or 'no id2label'}), expected 1: a "
            "reranker has one logit for a pair. A classifier of several, such as one for entailment, gives no order; "
            "take a checkpoint that was trained for ranking"
        )
    positions = config.get("position_embedding_type") or "absolute"
    if positions != "absolute" or config.get("is_decoder"):
        raise CheckpointError(
            f"{place}: position_embedding_type is {positions!r} and is_decoder {bool(config.get('is_decoder'))}, "
            "expected 'absolute' and False; other models are not supported"
        )
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    types = {part.get("rope_type") for part in (rope, *rope.values()) if isinstance(part, dict)}
    if types & set(_CHANGING_ROPE_TYPES):
        raise CheckpointError(
            f"{place}: rotary positions of the types {sorted(filter(None, types))}; "
            f"{' and '.join(_CHANGING_ROPE_TYPES)} are not supported"
        )
    return _read_activation(source)


def _read_activation(source: CheckpointSource) -> str | None:
    """Return the name of the activation that the checkpoint asks of sentence-transformers.

    Raises:
        CheckpointError: It is neither the identity nor the sigmoid.
    """
    named = (
        (source.config.get("sentence_transformers") or {}).get("activation_fn")
        or source.config.get("sbert_ce_default_activation_function")
        or source.read_json("config_sentence_transformers.json").get("activation_fn")
    )
    if named is None:
        return None
    module, _, name = str(named).rpartition(".")
    if not module.startswith("torch.") or name not in _ACTIVATIONS:
        raise CheckpointError(
            f"{source.folder}: sentence-transformers is to compute scores with the activation {named!r}, expected one "
            f"of {', '.join(f'torch.nn.{known}' for known in _ACTIVATIONS)}; if a score of the sigmoid is right, take "
            "the activation out of config.json"
        )
    return name


def _describe_activation(activation: str | None) -> tuple[str, ...]:
    if activation != "Identity":
        return ()
    return (
        "the checkpoint's own scores are logits without an activation: here they are the field logits, and "
        "relevance_score is their sigmoid, in the same order",
    )


def _check_normalizer(source: CheckpointSource, plain: Tokenizer) -> None:
    """Refuse a tokenizer whose class in transformers drops what tokenizer.json does to a text first.

    Raises:
        CheckpointError: It does.
    """
    normalizer = source.read_json("tokenizer.json").get("normalizer")
    if normalizer and plain.normalizer is None:
        raise CheckpointError(
            f"{source.folder / 'tokenizer.json'} has a normalizer ({normalizer.get('type')}), which transformers "
            f"{transformers.__version__} drops for the tokenizer_class of tokenizer_config.json, so texts would have "
            'other tokens than those that the model was trained with. Set tokenizer_class to "PreTrainedTokenizerFast"'
        )


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


def _sign(
    hidden_size: int, limits: Limits, text: TextFormat, encoder: nn.Module, head: nn.Module
) -> tuple[tuple[Piece, Piece], ModelSignature]:
    """Declare the family's tensor contract."""
    hidden = TensorSpec("hidden", "float32", (hidden_size,))
    batch = limits.text_batch
    encoder_signature = ModelSignature(
        "text_encoder",
        text.tensors,
        (hidden,),
        batch,
        encoder=True,
        max_run_elements=_TOKENS_PER_RUN,
    )
    head_signature = ModelSignature("scoring_head", (hidden,), SCORE_OUTPUTS, batch)
    ensemble = ModelSignature(
        "rerank_text", text.tensors, SCORE_OUTPUTS, batch, steps=(encoder_signature, head_signature)
    )

    def sample_hidden(rng: np.random.Generator, rows: int) -> Tensors:
        return {"hidden": rng.standard_normal((rows, hidden_size)).astype(np.float32)}

    pieces = (
        Piece(encoder_signature, encoder.eval(), text.sample),
        Piece(head_signature, head.eval(), sample_hidden),
    )
    return pieces, ensemble


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
    model_types=tuple(_KINDS),
    load=load,
    checkpoints=(
        "cross-encoder/ms-marco-MiniLM-L6-v2",
        "BAAI/bge-reranker-v2-m3",
        "Alibaba-NLP/gte-reranker-modernbert-base",
    ),
)
