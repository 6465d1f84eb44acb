"""What a stranger who reaches Triton's ports can do, over both protocols."""

from __future__ import annotations

import http.client

import grpc
import pytest
from lychee_client import LycheeClient, ServerError
from lychee_client._client import wait_for_steps
from lychee_client._operations import ask
from lychee_client.transports.base import ControlRequest
from lychee_client.triton_key import KEY_HEADER
from lychee_server import TritonServer
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc import service_pb2_grpc

pytestmark = pytest.mark.triton

SHUT_HTTP = [
    ("POST", "/v2/repository/index"),
    ("POST", "/v2/repository/models/lookup/load"),
    ("POST", "/v2/repository/models/lookup/unload"),
    ("GET", "/v2/systemsharedmemory/status"),
    ("POST", "/v2/systemsharedmemory/region/mine/register"),
    ("POST", "/v2/systemsharedmemory/unregister"),
    ("GET", "/v2/cudasharedmemory/status"),
    ("GET", "/v2/logging"),
    ("POST", "/v2/logging"),
    ("GET", "/v2/trace/setting"),
    ("POST", "/v2/models/lookup/trace/setting"),
]
OPEN_HTTP = ["/v2", "/v2/health/ready", "/v2/models/stats", "/v2/models/lookup/config", "/v2/models/lookup/ready"]
SHUT_GRPC = [
    ("RepositoryIndex", messages.RepositoryIndexRequest()),
    ("RepositoryModelLoad", messages.RepositoryModelLoadRequest(model_name="lookup")),
    ("RepositoryModelUnload", messages.RepositoryModelUnloadRequest(model_name="lookup")),
    ("SystemSharedMemoryStatus", messages.SystemSharedMemoryStatusRequest()),
    ("SystemSharedMemoryRegister", messages.SystemSharedMemoryRegisterRequest(name="mine", key="/mine", byte_size=1)),
    ("SystemSharedMemoryUnregister", messages.SystemSharedMemoryUnregisterRequest()),
    ("CudaSharedMemoryStatus", messages.CudaSharedMemoryStatusRequest()),
    ("LogSettings", messages.LogSettingsRequest()),
    ("TraceSetting", messages.TraceSettingRequest()),
]
OPEN_GRPC = [
    ("ServerMetadata", messages.ServerMetadataRequest()),
    ("ServerReady", messages.ServerReadyRequest()),
    ("ModelStatistics", messages.ModelStatisticsRequest()),
    ("ModelConfig", messages.ModelConfigRequest(name="lookup")),
]
STRANGERS = pytest.mark.parametrize("key", [None, "", "wrong"])


def ask_http(server: TritonServer, method: str, path: str, key: str | None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(server.http_url, timeout=30)
    try:
        headers = {} if key is None else {KEY_HEADER: key}
        connection.request(method, path, "{}" if method == "POST" else None, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def ask_grpc(server: TritonServer, method: str, message: object, key: str | None) -> str:
    """Return the details of the error, or nothing."""
    with grpc.insecure_channel(server.grpc_url) as channel:
        call = getattr(service_pb2_grpc.GRPCInferenceServiceStub(channel), method)
        try:
            call(message, metadata=[] if key is None else [(KEY_HEADER, key)], timeout=30)
        except grpc.RpcError as error:
            return str(error.details())
    return ""


@STRANGERS
@pytest.mark.parametrize(("method", "path"), SHUT_HTTP)
def test_stranger_is_refused_over_http(server: TritonServer, method: str, path: str, key: str | None) -> None:
    status, body = ask_http(server, method, path, key)
    assert (status, b"restricted" in body) == (403, True)


@STRANGERS
@pytest.mark.parametrize(("method", "message"), SHUT_GRPC, ids=lambda value: value if isinstance(value, str) else "")
def test_stranger_is_refused_over_grpc(server: TritonServer, method: str, message: object, key: str | None) -> None:
    assert "restricted" in ask_grpc(server, method, message, key)


def test_what_strangers_need_is_open(server: TritonServer) -> None:
    for path in OPEN_HTTP:
        assert ask_http(server, "GET", path, None)[0] == 200, path
    for method, message in OPEN_GRPC:
        assert ask_grpc(server, method, message, None) == "", method


def test_key_opens_the_rest(server: TritonServer) -> None:
    for method, path in SHUT_HTTP:
        if method == "GET" or path.endswith("index"):
            assert ask_http(server, method, path, server.key)[0] == 200, path
    for name, message in SHUT_GRPC:
        assert "restricted" not in ask_grpc(server, name, message, server.key), name


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_client_lists_the_models_with_and_without_the_key(server: TritonServer, protocol: str) -> None:
    url = server.grpc_url if protocol == "grpc" else f"http://{server.http_url}"
    listed = []
    for headers in ({KEY_HEADER: server.key}, {}):
        with LycheeClient(url, headers=headers) as client:
            listed.append(client.server_status())
    assert listed[0] == listed[1]
    assert {model.name for model in listed[0].models} == set(server.models)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_refusal_is_no_overload(server: TritonServer, protocol: str) -> None:
    url = server.grpc_url if protocol == "grpc" else f"http://{server.http_url}"
    with LycheeClient(url) as client, pytest.raises(ServerError, match="restricted") as caught:
        wait_for_steps(client._drive(ask(ControlRequest("index")), 10.0))
    assert not caught.value.retryable
