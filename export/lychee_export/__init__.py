"""Turn a reranker checkpoint into a validated Triton model repository."""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("lychee-rerank-export")
