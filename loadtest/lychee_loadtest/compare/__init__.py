"""Speed beside alternatives: the same weights, the same documents, the same machine, one run."""
