"""The server's manifest and tokenizer: fetched once, the tokenizer kept on disk under its SHA-256."""

from __future__ import annotations

import hashlib
import logging
from functools import partial
from pathlib import Path
from typing import Final

from lychee_client._errors import ConfigurationError, ContractError
from lychee_client._operations import Send, Wait, in_thread
from lychee_client.files import write_atomically
from lychee_client.manifest.manifest import Manifest, parse_manifest
from lychee_client.transports.base import InferRequest

CLIENT_ASSETS: Final = "client_assets"
_logger = logging.getLogger("lychee_client")


async def fetch_manifest() -> Manifest:
    """Fetch the manifest of the model that the server runs now.

    Raises:
        ContractError: The manifest does not fit this client.
        LycheeError: The server cannot serve the request.
    """
    return parse_manifest(await _fetch("manifest"))


async def fetch_tokenizer(manifest: Manifest, cache_dir: Path) -> str:
    """Return the tokenizer of a model; fetch it unless the disk has it.

    Args:
        manifest: The manifest of the model.
        cache_dir: The folder for tokenizers; it is created if it is missing. If it cannot be written, each client
            downloads the tokenizer again, and nothing worse happens.

    Raises:
        ModelNotReadyError: The server has another model by now.
        ContractError: The tokenizer does not fit the manifest.
        LycheeError: The server cannot serve the request.
    """
    sha256 = manifest.artifacts["tokenizer"]
    path = cache_dir / f"tokenizer-{sha256}.json"
    cached = await in_thread(partial(read_cached, path, sha256))
    if cached is not None:
        return cached
    tokenizer_json = await _fetch("tokenizer", manifest.model_version)
    actual = hash_text(tokenizer_json)
    if actual != sha256:
        raise ContractError(
            f"the server's tokenizer has SHA-256 {actual}, its manifest says {sha256}; export the model again",
            model_name=CLIENT_ASSETS,
        )
    await in_thread(partial(write_cached, path, tokenizer_json))
    return tokenizer_json


async def _fetch(output: str, model_version: str = "") -> str:
    handle = await Send(InferRequest(CLIENT_ASSETS, {}, (output,), model_version=model_version))
    tensor = (await Wait(handle)).outputs.get(output)
    if tensor is None or tensor.dtype != object or tensor.size != 1:
        raise ContractError(
            f"{CLIENT_ASSETS} did not answer one string as {output}; export the model again", model_name=CLIENT_ASSETS
        )
    try:
        return bytes(tensor.item()).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ContractError(
            f"{CLIENT_ASSETS} answered {output} in another encoding than UTF-8: {error}", model_name=CLIENT_ASSETS
        ) from error


def hash_text(text: str) -> str:
    """Return the SHA-256 of the UTF-8 bytes, 64 hex digits."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def read_cached(path: Path, sha256: str) -> str | None:
    """Return the cached text, or None if there is none, or what is there has another hash."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(data).hexdigest() != sha256:
        _logger.warning("%s is damaged (its SHA-256 is not the one in its name); fetching it again", path)
        return None
    return data.decode("utf-8")


def write_cached(path: Path, text: str) -> None:
    """Write atomically, so that a reader sees the old content, the new, or no file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode("utf-8"))
    except (OSError, ConfigurationError) as error:
        _logger.info("cannot write %s (%s); the tokenizer will be fetched again next time", path, error)
