"""How fast, and how big: load tests, benchmarks, comparisons, tuning and memory of a lychee-rerank server."""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("lychee-rerank-loadtest")
