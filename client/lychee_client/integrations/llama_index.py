"""LlamaIndex: a node postprocessor, for query engines and retrievers.

Needs the extra `lychee-rerank-client[llama-index]`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, ImageNode, MediaResource, MetadataMode, Node, NodeWithScore, QueryBundle

from lychee_client import ConfigurationError, Image, InvalidInputError
from lychee_client.foreign_input import from_base64, to_image
from lychee_client.integrations.reranker import OPTIONS, AnyClient, AnyPolicy, OnError, Reranker, scores_of
from lychee_client.types import Input, RerankResult, combine

__all__ = ["LycheeRerank"]

dispatcher = get_dispatcher(__name__)


class LycheeRerank(BaseNodePostprocessor):
    """Ranks nodes with a lychee-rerank server, and keeps the best.

    The nodes that it returns are copies, best first, with the relevance score (from 0 to 1) as their `score`, and with
    "relevance_score", "logit" and "decision" in their metadata, which neither a language model nor an embedding model
    gets to read. The image of an ImageNode, an ImageDocument or a Node counts, and a text beside it; so does the
    query's `image_path`.

    Args:
        url: The server, as LycheeClient takes it. The default is LYCHEE_URL, then "localhost:8001".
        client: A ready client in the place of `url`, `headers` and `model`; it stays open.
        headers: The headers that every request carries, such as {"Authorization": "Bearer KEY"}.
        model: Which of a gateway's models ranks, as LycheeClient takes it. None is LYCHEE_MODEL, then its default.
        timeout_s: Seconds for one call. None takes the client's.
        policy: What makes the decisions: a name, a Policy or a Calibration. None takes the client's.
        top_n: How many nodes to return at most. None returns all.
        score_threshold: The lowest relevance score of a node that is returned.
        instruction: What makes a node relevant, for a model that reads an instruction.
        metadata_mode: Which of its metadata a node's text has before it. The default is what an embedding model reads.
        on_error: What happens to nodes that cannot be ranked (an empty text, a broken image): "drop" leaves them out,
            with a LycheeWarning that names them, and "raise" raises InvalidInputError.

    Raises:
        LycheeError: `postprocess_nodes` raises what LycheeClient.rerank does.
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
    metadata_mode: MetadataMode = MetadataMode.EMBED
    on_error: OnError = "drop"

    _reranker: Reranker[NodeWithScore] = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Check the arguments that belong together."""
        super().model_post_init(context)
        self._reranker = Reranker(
            self._to_input, _name_of, self.url, self.headers, self.client, self.on_error, self.model
        )

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex stores the component."""
        return "LycheeRerank"

    def close(self) -> None:
        """Close the connection of `postprocess_nodes`, if there is one; the next call opens another."""
        self._reranker.close()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._reranker.aclose()

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = self._begin(nodes, query_bundle)
        return _finish(self._reranker.rank(query, nodes, **self._options()))

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = self._begin(nodes, query_bundle)
        return _finish(await self._reranker.arank(query, nodes, **self._options()))

    def _begin(self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None) -> Input:
        if query_bundle is None:
            raise ConfigurationError("there is no query; expected query_bundle or query_str")
        dispatcher.event(
            ReRankStartEvent(
                query=query_bundle, nodes=nodes, top_n=self.top_n or len(nodes), model_name="lychee-rerank"
            )
        )
        if query_bundle.image_path is None:
            return query_bundle.query_str
        return combine(query_bundle.query_str or None, Image.from_path(query_bundle.image_path))

    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in OPTIONS}

    def _to_input(self, scored: NodeWithScore) -> Input:
        node = scored.node
        image = _image_of(node)
        if image is None:
            return str(node.get_content(metadata_mode=self.metadata_mode))
        # Metadata alone, such as the file's name, would make every image a text as well.
        text = node.get_content(metadata_mode=MetadataMode.NONE)
        return combine(node.get_content(metadata_mode=self.metadata_mode) if text else None, image)


def _image_of(node: BaseNode) -> Image | None:
    path: Path | str | None
    url: object
    if isinstance(node, ImageNode):
        if node.image is not None:
            return from_base64(node.image)
        path, url = node.image_path, node.image_url
    elif isinstance(node, Node) and isinstance(node.image_resource, MediaResource):
        resource = node.image_resource
        if resource.data is not None:
            return from_base64(resource.data)
        path, url = resource.path, resource.url
    else:
        return None
    if path is not None:
        return Image.from_path(path)
    if url is not None:
        return to_image(str(url))
    if isinstance(node, ImageNode) and node.text:
        return None
    raise InvalidInputError("its image has neither data nor a path")


def _name_of(scored: NodeWithScore) -> str:
    return scored.node.node_id


def _finish(ranked: list[tuple[NodeWithScore, RerankResult]]) -> list[NodeWithScore]:
    nodes = [NodeWithScore(node=_copy(scored.node, result), score=result.relevance_score) for scored, result in ranked]
    dispatcher.event(ReRankEndEvent(nodes=nodes))
    return nodes


def _copy(node: BaseNode, result: RerankResult) -> BaseNode:
    scores = scores_of(result)
    hidden = {
        name: [*keys, *(key for key in scores if key not in keys)]
        for name in ("excluded_embed_metadata_keys", "excluded_llm_metadata_keys")
        if (keys := getattr(node, name)) is not None
    }
    return node.model_copy(update={"metadata": {**node.metadata, **scores}, **hidden})
