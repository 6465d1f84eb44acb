"""Models of the Hugging Face hub: the files of one revision, in its cache on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from lychee_export.checkpoint.layout import LAYOUTS
from lychee_export.errors import CheckpointError

__all__ = ["download", "weight_bytes"]

_TEXTS = ("*.json", "*.txt", "*.model", "*.metadata", "*.jinja", "README.md")


def download(model_id: str, revision: str | None, weights: Sequence[str] = (), subfolder: str = "") -> Path:
    """Download what is not in the cache, and nothing if it all is.

    Args:
        model_id: "owner/name".
        revision: The branch, tag or commit. None takes the main branch.
        weights: The patterns of weight files in order of preference: the files of the first that names any are
            downloaded too.
        subfolder: The folder inside the model whose files are meant, if it is not the model's own.

    Returns:
        The snapshot's folder; its name is the commit.

    Raises:
        CheckpointError: The model or the revision does not exist, or cannot be reached and is not in the cache.
    """
    prefix = f"{subfolder}/" if subfolder else ""
    below = f"{prefix}*/*"
    with _explained(model_id, revision):
        patterns = [prefix + pattern for pattern in _TEXTS]
        folder = Path(snapshot_download(model_id, revision=revision, allow_patterns=patterns, ignore_patterns=below))
        for pattern in weights:
            snapshot_download(model_id, revision=folder.name, allow_patterns=prefix + pattern, ignore_patterns=below)
            if any((folder / subfolder).glob(pattern)):
                break
    return folder


def weight_bytes(model_id: str, revision: str | None) -> int | None:
    """Ask the hub for the size of the weight files that `download` would take.

    Returns:
        Bytes; of an adapter without its base model's. None for what is no name on the hub, or without a network.
    """
    if "/" not in model_id:
        return None
    try:
        siblings = HfApi().model_info(model_id, revision=revision, files_metadata=True).siblings or []
    except Exception:  # of whatever HTTP library huggingface_hub uses; only a size stays unknown
        return None
    files = {PurePosixPath(file.rfilename): file.size or 0 for file in siblings}
    for layout in LAYOUTS:
        for depth in (1, 2):  # in the model's folder, or in that of its first module
            for pattern in layout.patterns:
                found = [size for path, size in files.items() if len(path.parts) == depth and path.match(pattern)]
                if found:
                    return sum(found)
    return 0


@contextmanager
def _explained(model_id: str, revision: str | None) -> Iterator[None]:
    wanted = model_id if revision is None else f"{model_id} at revision {revision}"
    folder = "give the folder of a downloaded copy instead"
    try:
        yield
    except GatedRepoError as error:
        raise CheckpointError(
            f"{wanted} is gated: accept its licence on the hub and set HF_TOKEN, or {folder}"
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"the hub has {model_id}, but no revision {revision!r}; {folder}") from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"the hub has no model {model_id!r}, or it is private (then set HF_TOKEN); check the name, or {folder}"
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise CheckpointError(
            f"{wanted} is not in the cache on this machine, and the hub cannot be reached (or HF_HUB_OFFLINE is set); "
            f"{folder}"
        ) from error
    except Exception as error:  # of whatever HTTP library huggingface_hub uses
        raise CheckpointError(f"cannot download {wanted}: {' '.join(str(error).split())[:300]}; {folder}") from error
