"""The tokens that mark, fill and do not count."""

from __future__ import annotations

from typing import Any

from lychee_client.manifest import LateInteractionSpec
from tokenizers import Tokenizer, normalizers

from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.errors import CheckpointError
from lychee_export.families.colbert.layout import Loaded
from lychee_export.families.text_format import check_normalizer, plain_tokenizer

__all__ = ["read_tokenizer", "read_tokens"]

_MAX_DOCUMENTS = 512


def read_tokens(source: CheckpointSource, loaded: Loaded) -> LateInteractionSpec:
    """Look up the tokens that the settings name.

    Raises:
        CheckpointError: The tokenizer lacks one, or texts do not begin and end with one token each.
    """
    settings, tokenizer = loaded.settings, loaded.tokenizer
    markers = []
    for marker in (settings.query_marker, settings.document_marker):
        found = tokenizer.convert_tokens_to_ids(marker)
        if found is None or found == tokenizer.unk_token_id:
            raise CheckpointError(
                f"{settings.path} names the token {marker!r}, which the tokenizer lacks; take both from one checkpoint"
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
    return LateInteractionSpec(
        query_marker=markers[0],
        document_marker=markers[1],
        query_tokens=settings.query_tokens,
        fill_token_id=tokenizer.mask_token_id,
        attends_to_fill=settings.attends_to_fill,
        skipped_token_ids=tuple(sorted(loaded.skipped)),
        max_documents=_MAX_DOCUMENTS,
    )


def read_tokenizer(source: CheckpointSource, loaded: Loaded) -> Tokenizer:
    """Make the tokenizer that the client gets.

    Raises:
        CheckpointError: It does not fit the model, or transformers changes what it does to a text.
    """
    plain: Any = plain_tokenizer(source, loaded.tokenizer, loaded.model.config.vocab_size)
    check_normalizer(source, plain)
    if loaded.strips:
        inner = [] if plain.normalizer is None else [plain.normalizer]
        plain.normalizer = normalizers.Sequence([normalizers.Strip(), *inner])
    made: Tokenizer = plain
    return made
