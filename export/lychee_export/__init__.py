"""Turn a reranker checkpoint into a validated Triton model repository."""
