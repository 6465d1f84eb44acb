"""Rankers for LangChain, LlamaIndex and Haystack: each module needs its framework, and has an extra of its name."""
