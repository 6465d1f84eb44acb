"""Models of the Hugging Face hub: the files of one revision, in its cache on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from lychee_export.errors import CheckpointError

__all__ = ["download", "weight_bytes"]

_TEXTS = ["*.json", "*.txt", "*.model", "*.jinja"]
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")
"""The formats in order of preference: the second is downloaded if the first is absent."""
_SUBFOLDERS = "*/*"


def download(model_id: str, revision: str | None, *, weights: bool) -> Path:
    """Download what is not in the cache, and nothing if it all is.

    Args:
        model_id: "owner/name".
        revision: The branch, tag or commit. None takes the main branch.
        weights: Whether to download the weights too; otherwise config and tokenizer alone.

    Returns:
        The snapshot's folder; its name is the commit.

    Raises:
        CheckpointError: The model or the revision does not exist, or cannot be reached and is not in the cache.
    """
    with _explained(model_id, revision):
        folder = Path(
            snapshot_download(model_id, revision=revision, allow_patterns=_TEXTS, ignore_patterns=_SUBFOLDERS)
        )
        for pattern in _WEIGHTS if weights else ():
            snapshot_download(model_id, revision=folder.name, allow_patterns=pattern, ignore_patterns=_SUBFOLDERS)
            if any(folder.glob(pattern)):
                break
    return folder


def weight_bytes(model_id: str, revision: str | None) -> int | None:
    """Ask the hub for the size of the weight files; None without a network."""
    try:
        siblings = HfApi().model_info(model_id, revision=revision, files_metadata=True).siblings or []
    except Exception:  # of whatever HTTP library huggingface_hub uses; only a size stays unknown
        return None
    for suffix in (".safetensors", ".bin"):
        sizes = [file.size or 0 for file in siblings if "/" not in file.rfilename and file.rfilename.endswith(suffix)]
        if sizes:
            return sum(sizes)
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
