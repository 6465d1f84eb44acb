"""One model that takes the place of another in a repository: never by mistake."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lychee_client.manifest import ModelSpec
from lychee_client.repository import read_manifest

from lychee_export.errors import OtherModelError

__all__ = ["check_replacement"]


def check_replacement(repository: Path, spec: ModelSpec, replace: Callable[[str], bool]) -> None:
    """See that a repository holds no other model, or that it may be replaced.

    Args:
        repository: The folder of the repository, which may be absent.
        spec: The model to be exported.
        replace: Asked with a sentence that names both models: whether to go on.

    Raises:
        OtherModelError: The other model is to stay.
    """
    current = read_manifest(repository)
    if current is None or (current.family, current.model_id) == (spec.family, spec.model_id):
        return
    problem = (
        f"{repository} holds {current.model_id} (family {current.family}), and this export would put {spec.model_id} "
        f"(family {spec.family}) in its place"
    )
    if not replace(problem):
        raise OtherModelError(
            f"{problem}. Export into another folder with --repository, or say --replace; what is there is kept among "
            "the earlier exports"
        )
