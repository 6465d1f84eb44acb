"""LiteLLM: a provider's name stands before the model's, and says what is sent where."""

from __future__ import annotations

from functools import partial

from rankers.ranker import KEY, MODEL, Call, Ranker

# Each with what its base URL has behind the gateway's own.
PROVIDERS = {
    "cohere": "",
    "jina_ai": "",
    "hosted_vllm": "",
    "infinity": "/infinity",
    "huggingface": "",
    "nvidia_nim": "",
    "nvidia_nim/ranking": "",
    "voyage": "/voyage",
    "together_ai": "/v1",
}
LOGITS = ("nvidia_nim", "nvidia_nim/ranking")


def rank(call: Call, *, provider: str) -> list[tuple[int, float]]:
    import litellm

    answer = litellm.rerank(
        model=f"{provider}/{MODEL}",
        query=call.query,
        documents=list(call.texts),
        top_n=call.top_n,
        api_base=call.url + PROVIDERS[provider],
        api_key=KEY,
    )
    return [(result["index"], result["relevance_score"]) for result in answer.results]


LITELLM = tuple(
    Ranker(f"litellm-{name}", partial(rank, provider=name), "logit" if name in LOGITS else "relevance_score")
    for name in PROVIDERS
)
