"""Manifest and tokenizer: fetched, checked, kept on disk."""

from pathlib import Path

import numpy as np
import pytest
from fakes.dual_encoder import FakeTransport
from lychee_client import ContractError, LycheeClient
from lychee_client._assets import read_cached, write_cached
from lychee_client.transports.base import InferRequest, InferResponse


def fetched(transport: FakeTransport) -> list[tuple[str, ...]]:
    sent = [request for request in transport.requests if isinstance(request, InferRequest)]
    return [request.outputs for request in sent if request.model_name == "client_assets"]


def load_once(transport: FakeTransport) -> None:
    with LycheeClient(transport=transport) as client:
        assert client.manifest().model_id == "fake"


def test_second_client_fetches_the_manifest_only(cache_dir: Path) -> None:
    first, second = FakeTransport(), FakeTransport()
    load_once(first)
    load_once(second)
    assert fetched(first) == [("manifest",), ("tokenizer",)]
    assert fetched(second) == [("manifest",)]
    assert len(list(cache_dir.iterdir())) == 1


def test_damaged_cache_file_is_fetched_again_and_replaced(cache_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    load_once(FakeTransport())
    (path,) = cache_dir.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    again = FakeTransport()
    load_once(again)
    assert fetched(again) == [("manifest",), ("tokenizer",)]
    assert path.read_bytes() == whole
    assert "damaged" in caplog.text


def test_cache_folder_that_cannot_be_written_costs_nothing_but_a_download(cache_dir: Path) -> None:
    cache_dir.write_text("a file in the folder's place")
    transport = FakeTransport()
    load_once(transport)
    assert fetched(transport) == [("manifest",), ("tokenizer",)]


def test_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()  # os.replace cannot put a file here
    write_cached(target, "text")
    assert list(tmp_path.iterdir()) == [target]


def test_cache_keeps_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    write_cached(path, "猫\r\n")
    assert path.read_bytes() == "猫\r\n".encode()
    assert read_cached(path, "0" * 64) is None
    assert read_cached(tmp_path / "none", "0" * 64) is None


def test_tokenizer_with_another_hash_is_refused(cache_dir: Path) -> None:
    def swap(request: InferRequest) -> InferResponse | None:
        if request.outputs != ("tokenizer",):
            return None
        return InferResponse({"tokenizer": np.array([b"{}"], object)})

    with LycheeClient(transport=FakeTransport(swap)) as client, pytest.raises(ContractError, match="SHA-256"):
        _ = client.manifest()
    assert not cache_dir.exists()


def test_hash_that_is_no_hash_is_refused() -> None:
    transport = FakeTransport(manifest={"artifacts": {"tokenizer": "../../etc/passwd"}})
    with LycheeClient(transport=transport) as client, pytest.raises(ContractError, match="64 hex digits"):
        _ = client.manifest()


@pytest.mark.parametrize(
    "outputs",
    [
        {},
        {"manifest": np.zeros(1, np.float32)},
        {"manifest": np.array([b"{}", b"{}"], object)},
        {"manifest": np.array([b"\xff\xfe"], object)},
    ],
)
def test_answer_that_is_not_one_string_is_refused(outputs: dict[str, np.ndarray]) -> None:
    transport = FakeTransport(lambda request: InferResponse(outputs))
    with LycheeClient(transport=transport) as client, pytest.raises(ContractError, match="client_assets"):
        _ = client.manifest()


def test_failed_fetch_is_tried_again_by_the_next_call() -> None:
    transport = FakeTransport()
    with LycheeClient(transport=transport) as client:
        transport.live = False
        with pytest.raises(Exception, match="gone"):
            client.rerank("q", ["a"])
        transport.live = True
        assert len(client.rerank("q", ["a"]).results) == 1
