"""Fixtures that several folders of tests share."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lychee_export.families import Checkpoint, load_checkpoint
from lychee_server.execution.onnx_sessions import available_executions
from tokenizers import Tokenizer

ROOT = Path(__file__).parent.parent
collect_ignore = ["clients"]  # they run in an environment of their own; see CONTRIBUTING.md

# A shell without job control has what it puts into the background ignore SIGINT, and every process inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def repository(root: Path) -> Path:
    """Return the exported model repository."""
    folder = root / "model_repository"
    if not any(folder.glob("client_assets/*/model.onnx")):
        pytest.fail("model_repository holds no exported models; run `make export`")
    return folder


@pytest.fixture(scope="session")
def executions() -> tuple[str, ...]:
    """Name the ways in which this machine can execute a model: what tests may expect depends on nothing else."""
    return tuple(available_executions())


@pytest.fixture(scope="session")
def checkpoint() -> Checkpoint:
    """Load the bundled checkpoint into torch modules."""
    return load_checkpoint("lychee-mini")


@pytest.fixture(scope="session")
def embed_text(checkpoint: Checkpoint) -> Callable[[str], torch.Tensor]:
    """Embed a text, prefix included, with the reference: float32, (1, embedding_dim)."""
    encoder = next(piece.module for piece in checkpoint.pieces if piece.signature.name == "text_encoder")
    tokenizer = Tokenizer.from_str(checkpoint.card.tokenizer_json)

    def embed(text: str) -> torch.Tensor:
        ids = torch.tensor([tokenizer.encode(text).ids])
        with torch.no_grad():
            embedding: torch.Tensor = encoder(ids, torch.ones_like(ids))
        return embedding

    return embed


@pytest.fixture(scope="session")
def photos(root: Path) -> Path:
    """Return the folder of the example photos."""
    return root / "examples" / "catalogue" / "photos"
