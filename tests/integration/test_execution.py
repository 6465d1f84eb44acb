"""What `lychee load` chooses on this machine, in a real Triton: told truthfully, and within its promise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpc
from lychee_client import LycheeClient
from lychee_server import TritonServer
from lychee_server.status import read_models
from tokenizers import Tokenizer

pytestmark = pytest.mark.triton

ENCODERS = ("text_encoder", "vision_encoder")
TEXTS = (
    "passage: 小猫",
    "passage: A cup of espresso wakes you up.",
    "passage: Dahlias bloom in late summer and come in yellow, orange and red.",
    "passage: " + "The palace was built in the fifteenth century. " * 3,
)
INVARIANCE_ATOL = 1e-4
TEXT_SCALE = 30.9  # of lychee-mini's scoring head: what a cosine is multiplied by


@pytest.fixture(scope="module", params=[0.01, 0.0])
def budget(request: pytest.FixtureRequest) -> float:
    """Return an error budget."""
    return float(request.param)


@pytest.fixture(scope="module")
def chosen(repository: Path, tmp_path_factory: pytest.TempPathFactory, budget: float) -> Iterator[TritonServer]:
    """Run Triton with whatever is best on this machine."""
    ports = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
    log_path = tmp_path_factory.mktemp("chosen") / "triton.log"
    with TritonServer(repository, error_budget=budget, **ports, log_path=log_path) as running:
        yield running


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_the_client_tells_what_executes_as_the_backend_does(chosen: TritonServer, protocol: str, budget: float) -> None:
    url = chosen.grpc_url if protocol == "grpc" else f"http://{chosen.http_url}"
    with LycheeClient(url) as client:
        told = client.manifest().execution
    models = read_models(chosen.host, chosen.http_port, chosen.metrics_port, chosen.key)
    running = {model.name: model for model in models}
    assert told.keys() == set(ENCODERS)
    for name, execution in told.items():
        assert f"{execution.provider}executionprovider" == (running[name].provider or "").lower()
        assert execution.precision == running[name].precision
        assert execution.reason == running[name].precision_reason != ""
        assert execution.error_budget == budget
    assert budget or {execution.precision for execution in told.values()} == {"fp32"}


def test_the_golden_pairs_are_as_close_as_what_executes_promises(chosen: TritonServer, budget: float) -> None:
    with LycheeClient(chosen.grpc_url) as client:
        report, told = client.check_golden_pairs(), client.manifest().execution
    in_float32 = all(execution.precision == "fp32" for execution in told.values())
    assert report.tolerance == (1e-4 if in_float32 else budget)
    assert report.passed


def test_no_score_depends_on_its_batch_or_its_padding(chosen: TritonServer, repository: Path) -> None:
    with LycheeClient(chosen.grpc_url) as client:
        buckets, pad = client.manifest().text.buckets, client.manifest().text.pad_token_id
    tokenizer = Tokenizer.from_file(
        str(repository.parent / "export/lychee_export/checkpoint/bundled/lychee_mini/tokenizer.json")
    )
    encoded = [encoding.ids for encoding in tokenizer.encode_batch(list(TEXTS))]
    with grpc.InferenceServerClient(chosen.grpc_url) as triton:

        def embed(rows: list[list[int]], length: int) -> np.ndarray:
            ids = np.array([row + [pad] * (length - len(row)) for row in rows], np.int64)
            mask = np.array([[1] * len(row) + [0] * (length - len(row)) for row in rows], np.int64)
            inputs = []
            for name, value in (("input_ids", ids), ("attention_mask", mask)):
                tensor = grpc.InferInput(name, value.shape, "INT64")
                tensor.set_data_from_numpy(value)
                inputs.append(tensor)
            embeddings: np.ndarray = triton.infer("text_encoder", inputs).as_numpy("text_embedding")
            return embeddings

        for ids in encoded:
            lengths = [length for length in buckets if length >= len(ids)][:4]
            alone = [embed([ids], length)[0] for length in lengths]
            others = [row for row in encoded if len(row) <= lengths[0] and row is not ids]
            together = embed([*others, ids, ids[:5]], lengths[0])[len(others)]
            for other in (*alone, together):
                # A score moves by at most a quarter of what its logit moves by.
                assert TEXT_SCALE * np.linalg.norm(other - alone[0]) / 4 <= INVARIANCE_ATOL
