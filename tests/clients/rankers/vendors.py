"""The vendors' own clients."""

from __future__ import annotations

from typing import Any

from rankers.ranker import KEY, MODEL, Call, Ranker

Ranked = list[tuple[int, float]]


def read_results(results: Any) -> Ranked:
    """Return positions and scores of results in Cohere's shape."""
    return [(result.index, result.relevance_score) for result in results]


def rank_cohere_v1(call: Call) -> Ranked:
    import cohere

    client = cohere.Client(KEY, base_url=call.url)
    return read_results(client.rerank(model=MODEL, query=call.query, documents=call.texts, top_n=call.top_n).results)


def rank_cohere_v2(call: Call) -> Ranked:
    import cohere

    client = cohere.ClientV2(KEY, base_url=call.url)
    return read_results(client.rerank(model=MODEL, query=call.query, documents=call.texts, top_n=call.top_n).results)


def rank_together(call: Call) -> Ranked:
    import together

    with together.Together(api_key=KEY, base_url=call.url) as client:
        answer = client.rerank.create(model=MODEL, query=call.query, documents=call.texts, top_n=call.count)
    return read_results(answer.results)


def rank_together_v1(call: Call) -> Ranked:
    return rank_together(Call(f"{call.url}/v1", call.query, call.texts, call.top_n))


def rank_voyage(call: Call) -> Ranked:
    import voyageai

    client = voyageai.Client(KEY, base_url=f"{call.url}/v1")
    return read_results(client.rerank(call.query, call.texts, MODEL, top_k=call.top_n).results)


def rank_mixedbread(call: Call) -> Ranked:
    from mixedbread import Mixedbread

    with Mixedbread(api_key=KEY, base_url=call.url) as client:
        answer = client.rerank(model=MODEL, query=call.query, input=call.texts, top_k=call.count)
    return [(result.index, result.score) for result in answer.data]


def rank_infinity(call: Call) -> Ranked:
    from infinity_client import AuthenticatedClient
    from infinity_client.api.default import rerank
    from infinity_client.models import RerankInput
    from infinity_client.types import UNSET

    body = RerankInput(query=call.query, documents=call.texts, model=MODEL, top_n=call.top_n or UNSET)
    with AuthenticatedClient(base_url=call.url, token=KEY, raise_on_unexpected_status=True) as client:
        return read_results(rerank.sync(client=client, body=body).results)


def rank_xinference(call: Call) -> Ranked:
    from xinference_client import RESTfulClient

    client = RESTfulClient(call.url)
    answer = client.get_model(MODEL).rerank(call.texts, call.query, top_n=call.top_n)
    return [(result["index"], result["relevance_score"]) for result in answer["results"]]


VENDORS = (
    Ranker("cohere-v1", rank_cohere_v1),
    Ranker("cohere-v2", rank_cohere_v2),
    Ranker("together", rank_together),
    Ranker("together-v1", rank_together_v1),
    Ranker("voyageai", rank_voyage),
    Ranker("mixedbread", rank_mixedbread),
    Ranker("infinity", rank_infinity),
    Ranker("xinference", rank_xinference, sends_key=False),
)
