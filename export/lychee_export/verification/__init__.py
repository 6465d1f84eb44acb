"""Replay a repository's golden pairs: the client's preprocessing, the repository's files, the reference's scores."""
