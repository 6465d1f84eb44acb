"""What executes the server's encoders, as its configurations tell it, and what follows from that."""

from __future__ import annotations

from typing import Any

import pytest
from fakes.dual_encoder import FakeTransport
from lychee_client import LycheeClient, ModelNotReadyError
from lychee_client._embedding_cache import EmbeddingKeys
from lychee_client._errors import ServerError
from lychee_client.manifest import GoldenPairs, Manifest
from lychee_client.manifest.execution import UNKNOWN, Execution, read_execution
from lychee_client.transports.base import ControlRequest, TransportError
from msgspec import structs

CPU_GROUP = {"instance_group": [{"kind": "KIND_CPU", "count": 1}]}


def told(**parameters: str) -> dict[str, Any]:
    return {**CPU_GROUP, "parameters": {name: {"string_value": value} for name, value in parameters.items()}}


def accelerated(**parameters: str) -> dict[str, Any]:
    accelerator = {"name": "openvino", "parameters": parameters}
    return {**CPU_GROUP, "optimization": {"execution_accelerators": {"cpu_execution_accelerator": [accelerator]}}}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            told(execution="openvino-bf16", execution_reason="fast", error_budget="0.02"),
            Execution("openvino", "bf16", "fast", 0.02),
        ),
        (told(execution="cpu-fp32", error_budget="exact"), Execution("cpu", "fp32", "", 0.0)),
        (told(execution="openvino-bf16", error_budget="?"), Execution("openvino", "bf16", "", 0.01)),
        (told(execution="auto"), Execution("cpu", "fp32")),
        (CPU_GROUP, Execution("cpu", "fp32")),
        ({"config": CPU_GROUP}, Execution("cpu", "fp32")),
        (accelerated(precision="fp32"), Execution("openvino", "fp32")),
        (accelerated(precision="bf16"), Execution("openvino", None)),
        (accelerated(), Execution("openvino", None)),
        ({"instance_group": [{"kind": "KIND_GPU"}]}, Execution("cuda", None)),
        ({"instance_group": [{"kind": "KIND_AUTO"}]}, UNKNOWN),
        ({}, UNKNOWN),
    ],
)
def test_a_configuration_tells_what_executes(config: dict[str, Any], expected: Execution) -> None:
    assert read_execution(config) == expected


def make_client(answer: Any) -> LycheeClient:
    def intercept(request: Any) -> Any:
        if isinstance(request, ControlRequest) and request.action == "config":
            if isinstance(answer, Exception):
                raise answer
            return answer
        return None

    return LycheeClient("localhost:1", transport=FakeTransport(intercept), max_retries=0)


def test_the_client_asks_for_each_encoder() -> None:
    with make_client(told(execution="openvino-bf16", error_budget="0.01")) as client:
        manifest = client.manifest()
    assert manifest.execution == dict.fromkeys(("text_encoder", "vision_encoder"), Execution("openvino", "bf16"))
    assert manifest.identity.execution == {"text_encoder": "bf16", "vision_encoder": "bf16"}
    assert manifest.identity.precision_text == "fp32 (text_encoder: bf16, vision_encoder: bf16)"


def test_a_server_that_keeps_its_configurations_to_itself_is_used_all_the_same() -> None:
    with make_client(TransportError(ServerError, "403", "restricted", "1")) as client:
        assert client.manifest().execution["text_encoder"] == UNKNOWN
        assert client.manifest().identity.execution == {}
        assert client.score("a", "b") > 0


def test_an_encoder_that_is_not_loaded_is_no_encoder_without_a_word() -> None:
    client = make_client(TransportError(ModelNotReadyError, "400", "unknown model", "1"))
    with client, pytest.raises(ModelNotReadyError):
        _ = client.manifest()


@pytest.fixture
def manifest() -> Manifest:
    """Return a manifest with the bound of float32."""
    with LycheeClient("localhost:1", transport=FakeTransport()) as client:
        return structs.replace(client.manifest(), golden_pairs=GoldenPairs(1e-4, ()))


@pytest.mark.parametrize(
    ("own", "executions", "accepted"),
    [
        (1e-4, (), 1e-4),
        (1e-4, (Execution("cpu", "fp32"), Execution("openvino", "fp32")), 1e-4),
        (1e-4, (Execution("openvino", "bf16", "", 0.02), Execution("cpu", "fp32")), 0.02),
        (1e-4, (UNKNOWN,), 0.01),
        (0.05, (Execution("cpu", "fp32"),), 0.05),
        (0.05, (Execution("openvino", "bf16"),), 0.06),
    ],
)
def test_the_golden_pairs_bound_follows_from_what_executes(
    manifest: Manifest, own: float, executions: tuple[Execution, ...], accepted: float
) -> None:
    named = {f"encoder_{number}": execution for number, execution in enumerate(executions)}
    executed = structs.replace(manifest, golden_pairs=GoldenPairs(own, ()), execution=named)
    assert executed.accepted_error == pytest.approx(accepted, abs=1e-12)


def test_embeddings_of_another_precision_have_other_keys(manifest: Manifest) -> None:
    def key(execution: Execution) -> bytes:
        executed = structs.replace(manifest, execution={"text_encoder": execution, "vision_encoder": UNKNOWN})
        return EmbeddingKeys(executed, "token ids", "text_encoder").make(b"1")

    exact, fast = key(Execution("cpu", "fp32")), key(Execution("openvino", "bf16"))
    assert exact != fast
    assert key(Execution("openvino", "fp32", "another provider, the same numbers")) == exact
