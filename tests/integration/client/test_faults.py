"""Each fault raises the same exception from every client, and the client works again once the fault is over."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from lychee_client import (
    ConnectionFailedError,
    ContractError,
    DeadlineExceededError,
    Image,
    ImageText,
    InferenceError,
    InvalidOutputError,
    LycheeClient,
    LycheeError,
    ModelNotReadyError,
    RequestRejectedError,
    ServerOverloadedError,
    TlsConfig,
)
from lychee_client._retry import DEFAULT_MAX_RETRIES
from lychee_client.transports.grpc import GrpcTransport
from PIL import Image as PillowImage

from ..faults import Fault, FaultProxy
from .conftest import QUEUE_TIMEOUT_S, Caller, Certificates, Connect, ControlledServer, Protocol, wait_until

pytestmark = pytest.mark.triton

PAIR = "a red cup", "a cup of tea"
SCORE = 0.5  # of whatever the controlled models score
RECOVERY_S = 5.0  # gRPC waits up to a second between its attempts to connect
HTTP_OF_ANOTHER_SERVER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def make_pixel() -> Image:
    stream = io.BytesIO()
    PillowImage.new("RGB", (1, 1)).save(stream, "PNG")
    return Image.from_bytes(stream.getvalue())


PIXEL = make_pixel()


def url_of(protocol: Protocol, address: str, *, tls: bool = False) -> str:
    return f"{protocol}{'s' if tls else ''}://{address}"


def score_after_recovery(client: Caller) -> float:
    """Score the pair as soon as the server can be reached and has room again."""
    deadline = time.monotonic() + RECOVERY_S
    while True:
        try:
            return client.score(*PAIR, timeout_s=RECOVERY_S)
        except (ConnectionFailedError, ServerOverloadedError):
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault.REFUSE, ConnectionFailedError),
        (Fault.RESET, ConnectionFailedError),
        (Fault.GARBAGE, ConnectionFailedError),
        (Fault.HALF_CLOSED, ConnectionFailedError),
        (Fault.SILENT, DeadlineExceededError),
        (Fault.SLOW, DeadlineExceededError),
    ],
    ids=["refuse", "reset", "garbage", "half closed", "silent", "slow"],
)
@pytest.mark.parametrize("connected", [True, False], ids=["connected", "new"])
def test_client_survives_a_fault(
    proxy: FaultProxy, protocol: Protocol, connect: Connect, fault: Fault, expected: type[LycheeError], connected: bool
) -> None:
    client = connect(url_of(protocol, proxy.address), max_retries=0)
    if connected:
        client.score(*PAIR)
    proxy.behave(fault)
    started = time.monotonic()
    with pytest.raises(LycheeError) as caught:
        client.score(*PAIR, timeout_s=1.0)
    assert time.monotonic() - started < 2.0
    assert type(caught.value) is expected, caught.value
    if isinstance(caught.value, DeadlineExceededError):
        assert caught.value.timeout_s == 1.0
    else:
        assert proxy.address in str(caught.value)
    proxy.behave(Fault.PASS)
    assert score_after_recovery(client) == SCORE


def test_reset_by_a_live_server_is_no_overload(proxy: FaultProxy, protocol: Protocol, connect: Connect) -> None:
    client = connect(url_of(protocol, proxy.address), max_retries=0)
    client.score(*PAIR)
    proxy.behave(Fault.RESET, times=1)
    with pytest.raises(ConnectionFailedError):
        client.score(*PAIR)
    assert client.score(*PAIR) == SCORE


@pytest.mark.parametrize("protocol", ["grpc"], indirect=True)
def test_reset_is_no_overload_where_another_connection_stands_already(
    proxy: FaultProxy, protocol: Protocol, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect(url_of(protocol, proxy.address), max_retries=0)
    client.score(*PAIR)
    monkeypatch.setattr(GrpcTransport, "_is_connected", lambda transport: True)
    proxy.behave(Fault.RESET, times=1)
    with pytest.raises(ConnectionFailedError):
        client.score(*PAIR)


@pytest.mark.parametrize("max_retries", [0, 1, 3])
def test_request_that_was_reset_is_sent_again_as_often_as_configured(
    proxy: FaultProxy, protocol: Protocol, connect: Connect, controlled: ControlledServer, max_retries: int
) -> None:
    client = connect(url_of(protocol, proxy.address), max_retries=max_retries)
    client.score(*PAIR)
    before = controlled.count_executed("text_encoder")
    proxy.behave(Fault.RESET)
    with pytest.raises(ConnectionFailedError):
        client.score(*PAIR)
    assert controlled.count_executed("text_encoder") - before == 1 + max_retries


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.GARBAGE], ids=lambda fault: fault.name)
def test_retries_hide_a_fault_that_passes(
    proxy: FaultProxy, protocol: Protocol, connect: Connect, fault: Fault
) -> None:
    client = connect(url_of(protocol, proxy.address), max_retries=8)
    client.score(*PAIR)
    proxy.behave(fault, times=2)
    assert client.score(*PAIR) == SCORE


@pytest.mark.parametrize("protocol", ["http"], indirect=True)
def test_answer_of_another_http_server_breaks_the_contract(proxy: FaultProxy, connect: Connect) -> None:
    client = connect(f"http://{proxy.address}")
    proxy.behave(Fault.GARBAGE, garbage=HTTP_OF_ANOTHER_SERVER)
    with pytest.raises(ContractError, match="HTTP port"):
        client.score(*PAIR)


def test_unknown_model_is_not_ready(controlled: ControlledServer, protocol: Protocol, connect: Connect) -> None:
    client = connect(url_of(protocol, controlled.address(protocol)))
    with pytest.raises(ModelNotReadyError, match="scoring_head_image") as caught:
        client.score("a red cup", PIXEL)
    assert caught.value.model_name == "scoring_head_image"
    assert caught.value.status == ("NOT_FOUND" if protocol == "grpc" else "404")
    assert not caught.value.retryable
    assert client.score(*PAIR) == SCORE


def test_refused_tensors_are_rejected(controlled: ControlledServer, protocol: Protocol, connect: Connect) -> None:
    client = connect(url_of(protocol, controlled.address(protocol)))
    with pytest.raises(RequestRejectedError, match="image_embedding") as caught:
        client.score("a red cup", ImageText(image=PIXEL, text="a cup"))
    assert caught.value.status == ("INVALID_ARGUMENT" if protocol == "grpc" else "400")


def test_failing_model_is_an_inference_error(
    controlled: ControlledServer, protocol: Protocol, connect: Connect
) -> None:
    client = connect(url_of(protocol, controlled.address(protocol)))
    controlled.order("scoring_head_text", "fail")
    before = controlled.count_executed("scoring_head_text")
    with pytest.raises(InferenceError, match="told to fail"):
        client.score(*PAIR)
    assert controlled.count_executed("scoring_head_text") - before == 1 + DEFAULT_MAX_RETRIES
    controlled.order("scoring_head_text", "work")
    assert client.score(*PAIR) == SCORE


def test_scores_that_are_not_finite_are_errors_of_their_documents(
    controlled: ControlledServer, protocol: Protocol, connect: Connect
) -> None:
    client = connect(url_of(protocol, controlled.address(protocol)))
    controlled.order("scoring_head_text", "nan in the second row")
    response = client.rerank(PAIR[0], ["a cup", "a mug", "a glass"])
    assert sorted(result.index for result in response.results) == [0, 2]
    (failed,) = response.errors
    assert isinstance(failed.error, InvalidOutputError)
    assert str(failed.error).startswith("document 1: scoring_head_text of lychee-mini in fp32")
    controlled.order("scoring_head_text", "nan")
    with pytest.raises(InvalidOutputError, match=r"scoring_head_text of lychee-mini in .* gave NaN"):
        client.score(*PAIR)


def test_embeddings_that_are_not_finite_are_errors_of_their_documents(
    controlled: ControlledServer, protocol: Protocol, connect: Connect
) -> None:
    client = connect(url_of(protocol, controlled.address(protocol)), embedding_cache=None)
    controlled.order("text_encoder", "nan in the second row")
    response = client.rerank(PAIR[0], ["a cup", "a mug", "a glass"])  # the query is the first row
    assert sorted(result.index for result in response.results) == [1, 2]
    assert [(failed.index, type(failed.error)) for failed in response.errors] == [(0, InvalidOutputError)]
    controlled.order("text_encoder", "nan")
    with pytest.raises(InvalidOutputError, match="query: text_encoder"):
        client.rerank(PAIR[0], ["a cup", "a mug", "a glass"])


@contextmanager
def occupied(controlled: ControlledServer, model_name: str, query: Any, *, waiting: int) -> Iterator[None]:
    """Keep a model busy with one request, and so many more in its queue."""
    controlled.order(model_name, "block")
    with ThreadPoolExecutor(1 + waiting) as pool, LycheeClient(controlled.address("grpc"), max_retries=0) as other:
        before = controlled.count_executed(model_name)
        calls = [pool.submit(other.score, query, "a cup of tea")]
        wait_until(lambda: controlled.count_executed(model_name) > before)
        calls += [pool.submit(other.score, query, "a cup of tea") for _ in range(waiting)]
        wait_until(lambda: controlled.count_waiting(model_name) == waiting)
        try:
            yield
        finally:
            controlled.order(model_name, "work")
            for call in calls:
                assert call.result(30) == SCORE


def test_full_queue_is_an_overload(controlled: ControlledServer, protocol: Protocol, connect: Connect) -> None:
    client = connect(url_of(protocol, controlled.address(protocol)), max_retries=2)
    client.score(*PAIR)
    with occupied(controlled, "scoring_head_text", "a red cup", waiting=1):
        before = controlled.count_executed("scoring_head_text")
        with pytest.raises(ServerOverloadedError, match="maximum queue size") as caught:
            client.score(*PAIR)
        assert caught.value.status == ("UNAVAILABLE" if protocol == "grpc" else "503")
        assert caught.value.retryable
        assert controlled.count_executed("scoring_head_text") == before
    assert client.score(*PAIR) == SCORE


def test_retries_outlast_a_full_queue(controlled: ControlledServer, protocol: Protocol, connect: Connect) -> None:
    client = connect(url_of(protocol, controlled.address(protocol)), max_retries=20)
    client.score(*PAIR)
    with occupied(controlled, "scoring_head_text", "a red cup", waiting=1), ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.score, *PAIR)
        time.sleep(0.3)
        assert not call.done()
        controlled.order("scoring_head_text", "work")
        assert call.result(30) == SCORE


def test_request_whose_deadline_passed_in_the_queue_is_never_executed(
    controlled: ControlledServer, protocol: Protocol, connect: Connect
) -> None:
    client = connect(url_of(protocol, controlled.address(protocol)))
    client.score(*PAIR)
    with occupied(controlled, "scoring_head_text", "a red cup", waiting=0):
        before = controlled.count_executed("scoring_head_text")
        with pytest.raises(DeadlineExceededError, match="scoring_head_text") as caught:
            client.score(*PAIR, timeout_s=0.5)
        assert caught.value.timeout_s == 0.5
    assert score_after_recovery(client) == SCORE
    assert controlled.count_executed("scoring_head_text") - before == 1


def test_request_that_the_server_let_wait_too_long_is_an_overload(
    controlled: ControlledServer, protocol: Protocol, connect: Connect
) -> None:
    client = connect(url_of(protocol, controlled.address(protocol)), max_retries=0)
    client.score(*PAIR)
    with occupied(controlled, "vision_encoder", PIXEL, waiting=0):
        started = time.monotonic()
        with pytest.raises(ServerOverloadedError, match="timeout expired"):
            client.score(PIXEL, "a cup of tea", timeout_s=10.0)
        assert QUEUE_TIMEOUT_S <= time.monotonic() - started < 5.0
    assert client.score(*PAIR) == SCORE


@pytest.mark.parametrize("mutual", [False, True], ids=["tls", "mutual"])
def test_tls_with_the_right_certificates_works(
    controlled: ControlledServer, certificates: Certificates, protocol: Protocol, connect: Connect, mutual: bool
) -> None:
    own = {"certificate_path": certificates.client_path, "key_path": certificates.client_key_path}
    tls = TlsConfig(ca_path=certificates.ca_path, **(own if mutual else {}))
    context = certificates.server_context(ask_client=mutual)
    with FaultProxy(controlled.address(protocol), context) as proxy:
        client = connect(url_of(protocol, proxy.address, tls=True), tls=tls)
        assert client.score(*PAIR) == SCORE


@pytest.mark.parametrize("mistake", ["plain client", "wrong authority", "wrong host", "no client certificate"])
def test_tls_mismatch_fails_to_connect(
    controlled: ControlledServer, certificates: Certificates, protocol: Protocol, connect: Connect, mistake: str
) -> None:
    context = certificates.server_context(
        "elsewhere.test" if mistake == "wrong host" else "127.0.0.1", ask_client=mistake == "no client certificate"
    )
    tls = TlsConfig(
        ca_path=certificates.other_ca_path if mistake == "wrong authority" else certificates.ca_path,
    )
    with FaultProxy(controlled.address(protocol), context) as proxy:
        secure = mistake != "plain client"
        client = connect(url_of(protocol, proxy.address, tls=secure), tls=tls if secure else None, max_retries=1)
        started = time.monotonic()
        with pytest.raises(ConnectionFailedError, match="TLS") as caught:
            client.score(*PAIR, timeout_s=10.0)
        assert proxy.address in str(caught.value)
        assert time.monotonic() - started < 5.0


def test_tls_client_at_a_plain_server_fails_to_connect(
    controlled: ControlledServer, certificates: Certificates, protocol: Protocol, connect: Connect
) -> None:
    url = url_of(protocol, controlled.address(protocol), tls=True)
    client = connect(url, tls=TlsConfig(ca_path=certificates.ca_path), max_retries=1)
    with pytest.raises(ConnectionFailedError, match="TLS"):
        client.score(*PAIR, timeout_s=10.0)


def test_triton_knows_a_request_by_the_calls_id(
    controlled: ControlledServer, protocol: Protocol, connect: Connect
) -> None:
    address = controlled.address(protocol)
    client = connect(address if protocol == "grpc" else f"http://{address}")
    client.rerank("a cat", ["a small cat"])
    before = len(controlled.executed("scoring_head_text"))
    client.rerank("a cat", ["a small cat"], request_id="call-of-a-gateway")
    (request_id,) = controlled.executed("scoring_head_text")[before:]
    assert request_id.startswith("call-of-a-gateway/")
