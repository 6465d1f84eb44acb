"""An experiment from its file to its report: two replicas before a real Triton, 200 users, clicks, and the verdict."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from fakes.commands import evaluate
from lychee_client import FeedbackEvent, LycheeClient
from lychee_server import TritonServer
from typer.testing import CliRunner

from .running_gateway import RunningGateway, run_gateway

pytestmark = pytest.mark.triton

USERS = 200
DOCUMENTS = ["a cup of coffee", "店里的小猫喜欢在窗台上晒太阳。", "a tabby cat on a sofa", "the rocket is ready"]
EXPERIMENT = """\
name = "cats-2027"
salt = "a-long-salt-of-the-tests"
log_dir = "records"

[arms.control]
share = 0.5

[arms.short]
share = 0.5
policy = "strict"
top_n = 2
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("experiment")
    (folder / "experiment.toml").write_text(EXPERIMENT, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def replicas(server: TritonServer, folder: Path) -> Iterator[list[RunningGateway]]:
    """Run two gateways with the same experiment."""
    options = ("--no-web", "--experiment", str(folder / "experiment.toml"))
    with ExitStack() as stack:
        running = []
        for name in ("one", "two"):
            (folder / name).mkdir()
            running.append(stack.enter_context(run_gateway(folder / name, server.grpc_url, *options)))
        for gateway in running:
            gateway.wait_for("/health/ready", 200)
        yield running


def visit(number: int, ranks: LycheeClient, tells: LycheeClient) -> str:
    """Play a user: one ranking, and what comes of it, told to the other replica. Return the user's arm."""
    chance = random.Random(number)
    user = f"user-{number}@example.org"
    response = ranks.rerank("一只猫", DOCUMENTS, user=user)
    assert response.experiment is not None
    assert response.ranking_id is not None
    assert not response.warnings
    is_short = response.experiment.arm == "short"
    assert len(response) == (2 if is_short else 4)
    events: list[FeedbackEvent] = []
    if chance.random() < (0.9 if is_short else 0.4):
        best = response[0].index
        events = [{"type": "click", "index": best, "id": "click"}, {"type": "dwell", "index": best, "dwell_s": 9.5}]
    if chance.random() < 0.2:
        events.append({"type": "conversion", "value": chance.uniform(5, 15), "id": "bought"})
    if events:
        for _ in range(2):  # as a caller does whose first answer was lost
            tells.feedback(response.ranking_id, [event for event in events if "id" in event or _ == 0])
    return response.experiment.arm


def test_what_replicas_wrote_of_200_users_is_one_report(replicas: list[RunningGateway], folder: Path) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(LycheeClient(gateway.url)) for gateway in replicas]
        with ThreadPoolExecutor(8) as pool:
            visits = [
                pool.submit(visit, number, clients[number % 2], clients[(number + 1) % 2]) for number in range(USERS)
            ]
            arms = [each.result() for each in visits]
        assert {"control", "short"} == set(arms)
        clients[0].feedback("an-id-of-nobody", [{"type": "click"}])
    metrics = [gateway.get("/metrics")[1] for gateway in replicas]
    assert all('lychee_gateway_experiment_rankings_total{arm="short"}' in text for text in metrics)
    assert "lychee_gateway_experiment_unknown_events_total 1.0" in metrics[0]
    for gateway in replicas:
        os.kill(gateway.process.pid, signal.SIGTERM)
        assert gateway.process.wait(timeout=60) == 0

    files = sorted((folder / "records").glob("*.jsonl"))
    assert len(files) == 2
    assert not any("user-" in path.read_text(encoding="utf-8") for path in files)
    done = CliRunner().invoke(evaluate, ["ab-report", str(folder / "records"), "--json"])
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["control_users"], report["treatment_users"]) == (arms.count("control"), arms.count("short"))
    assert report["sample_ratio_ok"]
    assert report["damaged_lines"] == []
    assert any("1 events belong to rankings that are not in the files" in warning for warning in report["warnings"])
    assert any("too few users" in warning for warning in report["warnings"])
    found = {metric["metric"]: metric for metric in report["metrics"]}
    for name in ("click_through", "click_mrr"):
        assert found[name]["finding"] == "higher"
        assert 0 < found[name]["low"] < found[name]["difference"] < found[name]["high"]
    assert found["click_through"]["treatment"] == pytest.approx(0.9, abs=0.12)
    assert found["clicks"]["treatment"] == found["click_through"]["treatment"]  # the second telling did not count
    assert found["conversions"]["finding"] == "none"
    assert 0.5 < found["conversion_value"]["control"] < 5
    words = CliRunner().invoke(evaluate, ["ab-report", str(folder / "records")]).stdout
    assert "click_through: 'short' is higher in share of a user's rankings with a click" in " ".join(words.split())
