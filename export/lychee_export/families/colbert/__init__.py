"""ColBERT: a model and a linear layer make a vector of every token, and MaxSim compares a query's with a document's.

Each vector of the query takes the largest of its cosines with the document's vectors; ``logits`` is their sum, as the
authors have it. ``relevance_score`` is (1 + logits / query_tokens) / 2: the mean of those cosines, mapped from [-1, 1]
to [0, 1]. It keeps the order, and means the same for every length of a query.

A query is [CLS] [Q] tokens [SEP] and masks up to its full length; the masks' vectors count, although no token reads
them. Where a checkpoint fills no queries, the client sends the same, and the encoder gives zeros for the masks, which
count nothing. A document is [CLS] [D] tokens [SEP]; the vectors of punctuation do not count.
"""

from __future__ import annotations

from lychee_client.manifest import CheckpointLimits, ModelSpec

from lychee_export.checkpoint.refusals import explain_unknown
from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.contract.limits import Limits
from lychee_export.errors import CheckpointError
from lychee_export.families.colbert import pylate, stanford
from lychee_export.families.colbert.backbones import BACKBONES
from lychee_export.families.colbert.contract import sign
from lychee_export.families.colbert.encoder import TokenEncoder
from lychee_export.families.colbert.reference import Judge
from lychee_export.families.colbert.tokens import read_tokenizer, read_tokens
from lychee_export.families.family import Checkpoint, Family, ModelCard, Reference
from lychee_export.families.rotary import check_rotary
from lychee_export.families.text_format import TextFormat, text_buckets

__all__ = ["FAMILY", "TokenEncoder", "load"]


def load(source: CheckpointSource, limits: Limits) -> Checkpoint:
    """Load a ColBERT checkpoint.

    Raises:
        CheckpointError: A file is missing or damaged, or does not fit the others; the checkpoint asks for something
            that is not computed here.
    """
    _check_config(source)
    backbone = BACKBONES[source.config["model_type"]]
    loaded = (stanford if stanford.is_stanford(source) else pylate).load(source, backbone)
    settings, vocab_size = loaded.settings, loaded.model.config.vocab_size
    late = read_tokens(source, loaded)
    tokenizer_json = read_tokenizer(source, loaded).to_str()
    text = TextFormat(
        vocab_size=vocab_size,
        pad_token_id=loaded.tokenizer.pad_token_id,
        buckets=text_buckets(source, limits, *loaded.longest),
        query_prefix=settings.query_prompt,
        document_prefix=settings.document_prompt,
    )
    if late.query_tokens > text.max_tokens:
        raise CheckpointError(
            f"{settings.path}: {settings.query_key} is {late.query_tokens}, and texts have at most {text.max_tokens} "
            "tokens here; export with a larger --max-tokens, or take another checkpoint"
        )
    window = getattr(loaded.model.config, "sliding_window", None)
    if settings.fills and not settings.attends_to_fill and window is not None and late.query_tokens - 1 > window:
        raise CheckpointError(
            f"{settings.path}: queries are filled up to {late.query_tokens} tokens with masks that no token reads, and "
            f"some layers see {window} tokens to either side. Of a mask further from the query than that, every "
            f"implementation of attention makes something else; set {settings.query_key} to at most {window + 1}"
        )
    encoder = TokenEncoder(
        backbone.make_states(loaded.model),
        loaded.projection,
        vocab_size,
        late.query_marker,
        late.skipped_token_ids,
        settings.fills,
    )
    pieces, ensemble = sign(loaded.dim, late, limits, text, encoder)
    spec = ModelSpec(
        family=FAMILY.name,
        pipeline="late_interaction",
        model_id=source.model_id,
        revision=source.revision,
        embedding_dim=loaded.dim,
        text=text.spec,
        late_interaction=late,
        checkpoint_limits=CheckpointLimits(min(loaded.longest)),
    )

    def make_reference() -> Reference:
        return Judge(loaded, late, text).make_reference(ensemble)

    return Checkpoint(ModelCard(spec, (ensemble,), tokenizer_json, sigmoid=False), pieces, make_reference)


def _claims(source: CheckpointSource) -> bool:
    return stanford.ARCHITECTURE in (source.config.get("architectures") or ()) or pylate.is_pylate(source)


def _check_config(source: CheckpointSource) -> None:
    """Refuse models that are not computed here.

    Raises:
        CheckpointError: It is one.
    """
    config, place = source.config, source.folder / "config.json"
    if config.get("auto_map") or config.get("model_type") not in BACKBONES:
        raise CheckpointError(
            f"{place}: a ColBERT model of model_type {config.get('model_type')!r}; expected one of "
            f"{', '.join(BACKBONES)}, without code of its own.{explain_unknown(config)} Take another checkpoint, such "
            f"as {', '.join(FAMILY.checkpoints)}"
        )
    positions = config.get("position_embedding_type") or "absolute"
    if positions != "absolute" or config.get("is_decoder"):
        raise CheckpointError(
            f"{place}: position_embedding_type is {positions!r} and is_decoder {bool(config.get('is_decoder'))}, "
            "expected 'absolute' and False; other models are not supported"
        )
    check_rotary(config, str(place))


FAMILY = Family(
    name="colbert",
    model_types=tuple(BACKBONES),
    load=load,
    checkpoints=(
        "colbert-ir/colbertv2.0",
        "answerdotai/answerai-colbert-small-v1",
        "jinaai/jina-colbert-v2",
        "lightonai/GTE-ModernColBERT-v1",
    ),
    architectures=(stanford.ARCHITECTURE,),
    claims=_claims,
)
