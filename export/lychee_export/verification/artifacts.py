"""Whether a repository's files are those that the exporter validated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lychee_client.repository import newest_version

from lychee_export.checkpoint.weight_files import hash_files

__all__ = ["check_artifacts"]

_TOKENIZER = "tokenizer"
"""The one artifact that is no file of its own: the client compares its hash when it fetches it."""


def check_artifacts(repository: Path, artifacts: Mapping[str, str]) -> list[str]:
    """Compare the files' SHA-256 with the manifest's.

    Args:
        repository: The folder of the model repository.
        artifacts: The SHA-256 in hex, by "<model>/<file>".

    Returns:
        One line for each file that is missing or differs.
    """
    problems = []
    for artifact, expected in artifacts.items():
        if artifact == _TOKENIZER:
            continue
        model_name, _, filename = artifact.partition("/")
        try:
            path = newest_version(repository / model_name) / filename
            seen = hash_files([path])
        except OSError as error:
            problems.append(f"{artifact} cannot be read: {error}")
            continue
        if seen != expected:
            problems.append(f"{path} has SHA-256 {seen[:12]}..., the manifest says {expected[:12]}...; export again")
    return problems
