"""How fast, and how big: load tests, benchmarks, comparisons, tuning and memory of a lychee-rerank server."""
