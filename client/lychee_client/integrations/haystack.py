"""Haystack: a ranker, for pipelines.

Needs the extra `lychee-rerank-client[haystack]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
from haystack import Document, component, default_from_dict, default_to_dict
from haystack.utils import Secret, deserialize_secrets_inplace

from lychee_client import Calibration, ConfigurationError, Policy
from lychee_client.foreign_input import to_image
from lychee_client.integrations.reranker import AnyClient, AnyPolicy, OnError, Reranker, scores_of
from lychee_client.types import Input, combine

__all__ = ["LycheeRanker"]


@component
class LycheeRanker:
    """Ranks documents with a lychee-rerank server, and keeps the best.

    The documents that it returns are copies, best first, with the relevance score (from 0 to 1) as their `score`, and
    with "relevance_score", "logit" and "decision" in their `meta`. A document's `blob` is read as an image if its type
    is one, and with a text beside it, both count.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: Secret | None = None,
        headers: dict[str, str] | None = None,
        client: AnyClient | None = None,
        timeout_s: float | None = None,
        policy: AnyPolicy | None = None,
        top_k: int | None = None,
        score_threshold: float | None = None,
        instruction: str | None = None,
        meta_fields_to_embed: Sequence[str] = (),
        embedding_separator: str = "\n",
        on_error: OnError = "drop",
        model: str | None = None,
    ) -> None:
        """Make a ranker; it does no network.

        Args:
            url: The server, as LycheeClient takes it. The default is LYCHEE_URL, then "localhost:8001".
            api_key: The key of a gateway that wants one; it travels as "Authorization: Bearer KEY".
            headers: The headers that every request carries. They are written to files with the pipeline: a key belongs
                into `api_key`.
            client: A ready client in the place of these and of `model`; it stays open, and such a ranker cannot be
                written to a file.
            timeout_s: Seconds for one call. None takes the client's.
            policy: What makes the decisions: a name, a Policy or a Calibration. None takes the client's.
            top_k: How many documents to return at most. None returns all.
            score_threshold: The lowest relevance score of a document that is returned.
            instruction: What makes a document relevant, for a model that reads an instruction.
            meta_fields_to_embed: The fields of `meta` that stand before a document's text.
            embedding_separator: What stands between them.
            on_error: What happens to documents that cannot be ranked (an empty text, a broken image): "drop" leaves
                them out, with a LycheeWarning that names them, and "raise" raises InvalidInputError.
            model: Which of a gateway's models ranks, as LycheeClient takes it. None is LYCHEE_MODEL, then its default.

        Raises:
            ConfigurationError: Arguments do not fit together.
        """
        self.url = url
        self.api_key = api_key
        self.headers = headers
        self.timeout_s = timeout_s
        self.policy = policy
        self.top_k = top_k
        self.score_threshold = score_threshold
        self.instruction = instruction
        self.meta_fields_to_embed = list(meta_fields_to_embed)
        self.embedding_separator = embedding_separator
        self.on_error = on_error
        self.model = model
        key = None if api_key is None else api_key.resolve_value()
        sent = {**({} if key is None else {"Authorization": f"Bearer {key}"}), **(headers or {})}
        self._reranker: Reranker[Document] = Reranker(self._to_input, _name_of, url, sent, client, on_error, model)

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str,
        documents: list[Document],
        top_k: int | None = None,
        score_threshold: float | None = None,
        instruction: str | None = None,
    ) -> dict[str, list[Document]]:
        """Rank documents for a query.

        Args:
            query: A text.
            documents: Texts and images.
            top_k: In the place of the ranker's own.
            score_threshold: In the place of the ranker's own.
            instruction: In the place of the ranker's own.

        Returns:
            "documents": copies of the documents, best first.

        Raises:
            LycheeError: What LycheeClient.rerank raises.
        """
        options = self._options(top_k, score_threshold, instruction)
        return {"documents": _copies(self._reranker.rank(query, documents, **options))}

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query: str,
        documents: list[Document],
        top_k: int | None = None,
        score_threshold: float | None = None,
        instruction: str | None = None,
    ) -> dict[str, list[Document]]:
        """Do what `run` does; see there."""
        options = self._options(top_k, score_threshold, instruction)
        return {"documents": _copies(await self._reranker.arank(query, documents, **options))}

    def close(self) -> None:
        """Close the connection of `run`, if there is one; the next call opens another."""
        self._reranker.close()

    async def close_async(self) -> None:
        """Close all connections."""
        await self._reranker.aclose()

    def to_dict(self) -> dict[str, Any]:
        """Return the ranker as a pipeline's file holds it.

        Raises:
            ConfigurationError: It has a ready client, which no file can hold.
        """
        if self._reranker.client is not None:
            raise ConfigurationError("a ranker with a ready client cannot be written to a file; make it with a url")
        return default_to_dict(
            self,
            url=self.url,
            api_key=None if self.api_key is None else self.api_key.to_dict(),
            headers=self.headers,
            timeout_s=self.timeout_s,
            policy=msgspec.to_builtins(self.policy),
            top_k=self.top_k,
            score_threshold=self.score_threshold,
            instruction=self.instruction,
            meta_fields_to_embed=self.meta_fields_to_embed,
            embedding_separator=self.embedding_separator,
            on_error=self.on_error,
            model=self.model,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> LycheeRanker:
        """Return the ranker that `to_dict` wrote."""
        parameters = data.get("init_parameters", {})
        deserialize_secrets_inplace(parameters, keys=["api_key"])
        policy = parameters.get("policy")
        if isinstance(policy, dict):
            parameters["policy"] = msgspec.convert(policy, Calibration if "threshold" in policy else Policy)
        ranker: LycheeRanker = default_from_dict(cls, data)
        return ranker

    def _options(self, top_k: int | None, score_threshold: float | None, instruction: str | None) -> dict[str, Any]:
        return {
            "top_n": self.top_k if top_k is None else top_k,
            "score_threshold": self.score_threshold if score_threshold is None else score_threshold,
            "instruction": self.instruction if instruction is None else instruction,
            "policy": self.policy,
            "timeout_s": self.timeout_s,
        }

    def _to_input(self, document: Document) -> Input:
        fields = [document.meta.get(name) for name in self.meta_fields_to_embed]
        parts = [str(part) for part in (*fields, document.content) if part]
        text = self.embedding_separator.join(parts)
        if document.blob is None or not (document.blob.mime_type or "image/").startswith("image/"):
            return text
        return combine(text or None, to_image(document.blob.data))


def _name_of(document: Document) -> str:
    return document.id


def _copies(ranked: Sequence[tuple[Document, Any]]) -> list[Document]:
    return [
        replace(document, score=result.relevance_score, meta={**document.meta, **scores_of(result)})
        for document, result in ranked
    ]
