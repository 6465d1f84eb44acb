"""LangChain: a document compressor, for ContextualCompressionRetriever and wherever else one goes.

Needs the extra `lychee-rerank-client[langchain]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, Field, PrivateAttr

from lychee_client.foreign_input import to_image
from lychee_client.integrations.reranker import OPTIONS, AnyClient, AnyPolicy, OnError, Reranker, scores_of
from lychee_client.types import Input, RerankResult, combine

__all__ = ["LycheeRerank"]


class LycheeRerank(BaseDocumentCompressor):
    """Ranks documents with a lychee-rerank server, and keeps the best.

    The documents that it returns are copies with "relevance_score" (from 0 to 1), "logit" and "decision" in their
    metadata, best first.

    Args:
        url: The server, as LycheeClient takes it. The default is LYCHEE_URL, then "localhost:8001".
        client: A ready client in the place of `url`, `headers` and `model`; it stays open.
        headers: The headers that every request carries, such as {"Authorization": "Bearer KEY"}.
        model: Which of a gateway's models ranks, as LycheeClient takes it. None is LYCHEE_MODEL, then its default.
        timeout_s: Seconds for one call. None takes the client's.
        policy: What makes the decisions: a name, a Policy or a Calibration. None takes the client's.
        top_n: How many documents to return at most. None returns all.
        score_threshold: The lowest relevance score of a document that is returned.
        instruction: What makes a document relevant, for a model that reads an instruction.
        image_key: The key of the metadata under which documents have an image: bytes, a Pillow image, a path or a data
            URL. With a text beside it, both count. None reads texts alone.
        on_error: What happens to documents that cannot be ranked (an empty text, a broken image): "drop" leaves them
            out, with a LycheeWarning that names them, and "raise" raises InvalidInputError.

    Raises:
        LycheeError: `compress_documents` raises what LycheeClient.rerank does.
    """

    url: str | None = None
    client: AnyClient | None = Field(default=None, exclude=True)
    headers: dict[str, str] | None = Field(default=None, repr=False)
    model: str | None = None
    timeout_s: float | None = None
    policy: AnyPolicy | None = None
    top_n: int | None = None
    score_threshold: float | None = None
    instruction: str | None = None
    image_key: str | None = None
    on_error: OnError = "drop"

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    _reranker: Reranker[Document] = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Check the arguments that belong together."""
        self._reranker = Reranker(
            self._to_input, _name_of, self.url, self.headers, self.client, self.on_error, self.model
        )

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Return copies of the documents, ranked; `callbacks` are not called."""
        return [_copy(*ranked) for ranked in self._reranker.rank(query, documents, **self._options())]

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Return what `compress_documents` does."""
        return [_copy(*ranked) for ranked in await self._reranker.arank(query, documents, **self._options())]

    def close(self) -> None:
        """Close the connection of `compress_documents`, if there is one; the next call opens another."""
        self._reranker.close()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._reranker.aclose()

    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in OPTIONS}

    def _to_input(self, document: Document) -> Input:
        image = None if self.image_key is None else document.metadata.get(self.image_key)
        if image is None:
            return document.page_content
        return combine(document.page_content or None, to_image(image))


def _name_of(document: Document) -> str | None:
    name = document.id or document.metadata.get("source")
    return None if name is None else str(name)


def _copy(document: Document, result: RerankResult) -> Document:
    return document.model_copy(update={"metadata": {**document.metadata, **scores_of(result)}})
