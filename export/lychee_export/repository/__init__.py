"""Triton's model repository: what is declared of each model, and how a repository is written."""
