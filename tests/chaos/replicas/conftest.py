"""One deployment for the tests of this folder: three replicas of Triton, a gateway, the right scores of two models."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chaos.replicas.deployment import CLIENTS, GATEWAY_PORT, GRPC_PORT, HTTP_PORT, Callers, Gateway, Triton, url_of
from chaos.replicas.network import Network, find_missing
from chaos.replicas.other_model import export_other_model

GATEWAY_URL = url_of("gateway", GATEWAY_PORT, "http://")
CALLERS = (
    f"sdk={url_of('triton', GRPC_PORT)}",
    f"sdk={url_of('triton', HTTP_PORT, 'http://')}",
    f"async={url_of('triton', GRPC_PORT, 'dns:///')}",
    f"rest={GATEWAY_URL}",
)
PAUSE_S = 0.3


@dataclass
class Deployment:
    """What runs, and what is right.

    Attributes:
        network: The machines.
        tritons: Three replicas, which serve `first`.
        spare: A machine for another one.
        gateways: Two; only the first runs.
        first: The repository of lychee-mini.
        second: The repository of another model.
        expected: The file with the right scores of both.
    """

    network: Network
    tritons: list[Triton]
    spare: Triton
    gateways: list[Gateway]
    first: Path
    second: Path
    expected: Path

    def publish(self, *tritons: Triton) -> None:
        """Have the name hold these replicas."""
        self.network.publish("triton", *(triton.address for triton in tritons))

    def callers(self, *callers: str) -> Callers:
        """Make callers; by default one for each way to call."""
        return Callers(self.network, self.expected, PAUSE_S, callers or CALLERS)


@pytest.fixture(scope="session")
def deployment(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Start three replicas of Triton and a gateway, each with an address of its own."""
    if missing := find_missing():
        pytest.skip(missing)
    folder = tmp_path_factory.mktemp("replicas")
    second = export_other_model(folder)
    with Network(folder) as network:
        network.add(CLIENTS)
        *tritons, spare = (Triton(network, f"triton-{letter}") for letter in "abcd")
        gateways = [Gateway(network, f"gateway-{letter}") for letter in "ab"]
        for triton in tritons:
            triton.start(repository)
        spare.start(second)
        scores = {"first": _record(network, tritons[0]), "second": _record(network, spare)}
        spare.stop()
        expected = folder / "expected.json"
        expected.write_text(json.dumps(scores), encoding="utf-8")
        deployed = Deployment(network, tritons, spare, gateways, repository, second, expected)
        deployed.publish(*tritons)
        gateways[0].start(url_of("triton", GRPC_PORT))
        network.publish("gateway", gateways[0].address)
        yield deployed


@pytest.fixture(autouse=True)
def healthy(request: pytest.FixtureRequest) -> None:
    """Have every test of the deployment begin with three replicas of the first model, whatever the one before left."""
    if "deployment" not in request.fixturenames:
        return
    deployed: Deployment = request.getfixturevalue("deployment")
    for triton in deployed.tritons:
        if triton.repository != deployed.first:
            if triton.repository is not None:
                triton.stop()
            triton.start(deployed.first)
    deployed.publish(*deployed.tritons)


def _record(network: Network, triton: Triton) -> Any:
    url = f"{triton.address}:{GRPC_PORT}"
    return json.loads(network.run(CLIENTS, sys.executable, "-m", "chaos.replicas.callers", "record", url))
