"""A canary and a shadow: two real Tritons with other weights behind one gateway, and the report of what it wrote."""

from __future__ import annotations

import base64
import json
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from checkpoints.changed_weights import change_weights
from fakes.commands import evaluate
from lychee_client import Image, ImageText, LycheeClient
from lychee_server import TritonServer
from scipy import stats
from typer.testing import CliRunner

from ..faults import Fault, FaultProxy
from .running_gateway import RunningGateway, run_gateway

pytestmark = pytest.mark.triton

CALLS = 150
SHARE = 0.3
DOCUMENTS = ["a cup of coffee", "店里的小猫喜欢在窗台上晒太阳。", "a tabby cat on a sofa", "the rocket is ready"]
BODY = {"query": "一只猫", "documents": DOCUMENTS}
PAIR = {"query": "一只猫", "document": "a cup of coffee"}  # takes no part in an experiment
ARMS = """
unit = "call"
[arms.control]
share = 0.7
[arms.new]
share = 0.3
model = "new"
"""
SHADOW = """
[shadow]
model = "new"
share = 1.0
"""
WAIT_S = 60.0
PORTS = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}


@pytest.fixture(scope="module")
def new(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """Serve the same model with other weights."""
    changed = change_weights(repository, tmp_path_factory.mktemp("changed") / "mini")
    log = tmp_path_factory.mktemp("triton") / "triton.log"
    with TritonServer(changed, config_name="cpu", **PORTS, log_path=log) as running:
        yield running


def run(
    stack: ExitStack,
    folder: Path,
    old: TritonServer,
    new: str,
    experiment: str,
    *more: str,
    names: Sequence[str] = ("old", "new"),
) -> tuple[RunningGateway, httpx.Client]:
    """Run a gateway of both models with an experiment, and wait until those that are named answer."""
    models = {"models": {"old": {"triton_url": old.grpc_url}, "new": {"triton_url": new}}}
    (folder / "models.json").write_text(json.dumps(models), encoding="utf-8")
    head = 'name = "canary"\nsalt = "a-long-salt-of-the-tests"\nlog_dir = "records"\n'
    (folder / "experiment.toml").write_text(head + experiment, encoding="utf-8")
    options = (
        "--no-web",
        "--models",
        str(folder / "models.json"),
        "--experiment",
        str(folder / "experiment.toml"),
        *more,
    )
    gateway = stack.enter_context(run_gateway(folder, old.grpc_url, *options))
    client = stack.enter_context(httpx.Client(base_url=gateway.url, timeout=60, trust_env=False))
    for each in names:
        wait(lambda each=each: client.post("/v1/score", json={**PAIR, "model": each}).status_code == 200)
    return gateway, client


def wait(is_so: Callable[[], bool]) -> None:
    ends_at_s = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < ends_at_s
        time.sleep(0.05)


def stop(gateway: RunningGateway) -> None:
    os.kill(gateway.process.pid, signal.SIGTERM)
    assert gateway.process.wait(timeout=60) == 0


def metric(client: httpx.Client, name: str, prefix: str = "lychee_gateway_experiment_") -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"{prefix}{name}"))


def shadows_now(client: httpx.Client) -> float:
    return metric(client, 'calls_running{model="new"}', "lychee_gateway_")


def scores(results: Any) -> list[float]:
    return [each["relevance_score"] for each in sorted(results, key=lambda each: each["index"])]


def direct(server: TritonServer, documents: Sequence[Any] = DOCUMENTS) -> list[float]:
    with LycheeClient(server.grpc_url) as client:
        results = client.rerank(BODY["query"], documents)
    return [each.relevance_score for each in sorted(results, key=lambda each: each.index)]


def ask(client: httpx.Client, number: int, **changes: Any) -> Any:
    answer = client.post("/v1/rerank", json={**BODY, **changes}, headers={"x-request-id": f"call-{number}"})
    assert answer.status_code == 200, answer.text
    return answer.json()


def written(folder: Path) -> str:
    return "".join(path.read_text(encoding="utf-8") for path in (folder / "records").glob("*.jsonl"))


def test_a_canary_gets_its_share_and_a_shadow_the_same_calls(
    server: TritonServer, new: TritonServer, tmp_path: Path
) -> None:
    expected = {"control": direct(server), "new": direct(new)}
    assert expected["control"] != pytest.approx(expected["new"], abs=1e-3)
    with ExitStack() as stack:
        gateway, client = run(stack, tmp_path, server, new.grpc_url, ARMS + SHADOW)
        arms = []
        for number in range(CALLS):
            body = ask(client, number)
            arms.append(body["experiment"]["arm"])
            assert scores(body["results"]) == pytest.approx(expected[arms[-1]], abs=1e-5)
        assert ask(client, 0)["experiment"]["arm"] == arms[0]
        told = client.post("/v1/feedback", json={"ranking_id": body["ranking_id"], "events": [{"type": "click"}]})
        assert told.json()["known"]
        wait(lambda: metric(client, "shadow_calls_total") > 0)
        assert metric(client, "fallbacks_total") == 0
        stop(gateway)
    assert stats.binomtest(arms.count("new"), CALLS, SHARE).pvalue > 1e-3

    text = written(tmp_path)
    assert "cat" not in text.replace("canary", "")
    assert "call-1" not in text
    pairs = [record for record in map(json.loads, text.splitlines()) if record["record"] == "shadow"]
    assert pairs
    for pair in pairs:
        assert scores(pair["primary"]["results"]) == pytest.approx(expected["control"], abs=1e-5)
        assert scores(pair["shadow"]["results"]) == pytest.approx(expected["new"], abs=1e-5)
    done = CliRunner().invoke(evaluate, ["ab-report", str(tmp_path / "records"), "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["unit"], report["damaged_lines"]) == ("call", [])
    assert report["control_users"] == arms.count("control")
    (shadow,) = report["shadows"]
    assert shadow["calls"] == len(pairs)
    assert shadow["tau"]["value"] == pytest.approx(stats.kendalltau(expected["control"], expected["new"]).statistic)
    answered = [*arms, arms[0]]  # one call was asked twice
    found = {arm["arm"]: sum(arm["models"].values()) for arm in report["arms"]}
    assert found == {arm: answered.count(arm) for arm in ("control", "new")}
    words = CliRunner().invoke(evaluate, ["ab-report", str(tmp_path / "records")]).stdout
    assert "the two models rank alike to a tau of" in " ".join(words.split())
    if (kept := os.environ.get("LYCHEE_KEPT_REPORT")) is not None:
        Path(kept).write_text(words, encoding="utf-8")


def test_a_dead_canary_costs_nobody_an_answer(server: TritonServer, tmp_path: Path) -> None:
    expected = direct(server)
    with ExitStack() as stack:
        gateway, client = run(stack, tmp_path, server, "127.0.0.1:9", ARMS + SHADOW, names=("old",))
        arms = []
        for number in range(30):
            body = ask(client, number)
            arms.append(body["experiment"]["arm"])
            assert scores(body["results"]) == pytest.approx(expected, abs=1e-5)
        assert metric(client, "fallbacks_total") == arms.count("new") > 0
        assert metric(client, "shadow_dropped_total") >= 30
        stop(gateway)
    done = CliRunner().invoke(evaluate, ["ab-report", str(tmp_path / "records"), "--json"])
    found = {arm["arm"]: arm["fallbacks"] for arm in json.loads(done.stdout)["arms"]}
    assert found == {"control": {}, "new": {"not_ready": arms.count("new")}}


def test_a_shadow_that_dies_or_cannot_be_written_changes_no_answer(
    server: TritonServer, new: TritonServer, tmp_path: Path
) -> None:
    expected = direct(server)
    with ExitStack() as stack:
        log = tmp_path / "triton.log"
        dying = stack.enter_context(TritonServer(new.repository, config_name="cpu", **PORTS, log_path=log))
        full = SHADOW.replace("share", "timeout_s = 2.0\nshare")
        gateway, client = run(stack, tmp_path, server, dying.grpc_url, full)
        (tmp_path / "records").rename(tmp_path / "moved")
        (tmp_path / "records").write_text("no folder", encoding="utf-8")
        for number in range(20):
            if number == 10:
                dying.stop()
            assert scores(ask(client, number)["results"]) == pytest.approx(expected, abs=1e-5)
        assert metric(client, "shadow_calls_total") + metric(client, "shadow_dropped_total") > 0
        ask(client, 21)
        stop(gateway)


def test_images_reach_canary_and_shadow_as_they_came(
    server: TritonServer, new: TritonServer, tmp_path: Path, photos: Path
) -> None:
    files = [(photos / name).read_bytes() for name in ("cat.jpg", "coffee.jpg")]
    urls = [f"data:image/jpeg;base64,{base64.b64encode(file).decode()}" for file in files]
    sent = [DOCUMENTS[0], {"image": urls[0]}, {"text": DOCUMENTS[2], "image": urls[1]}, {"image": "no image"}]
    images = [Image.from_bytes(file) for file in files]
    documents = [DOCUMENTS[0], images[0], ImageText(images[1], DOCUMENTS[2])]
    expected = {"control": direct(server, documents), "new": direct(new, documents)}
    assert expected["control"] != pytest.approx(expected["new"], abs=1e-3)
    with ExitStack() as stack:
        gateway, client = run(stack, tmp_path, server, new.grpc_url, ARMS + SHADOW)
        for number in range(20):
            body = ask(client, number, documents=sent)
            ranked = [each for each in body["results"] if each["decision"] != "error"]
            assert scores(ranked) == pytest.approx(expected[body["experiment"]["arm"]], abs=1e-4)
            assert [each["index"] for each in body["errors"]] == [3]
        wait(lambda: metric(client, 'shadow_calls_total{outcome="answered"}') > 0)
        assert metric(client, "fallbacks_total") == 0
        stop(gateway)
    pairs = [record for record in map(json.loads, written(tmp_path).splitlines()) if record["record"] == "shadow"]
    assert pairs
    for pair in pairs:
        assert scores(pair["primary"]["results"]) == pytest.approx(expected["control"], abs=1e-4)
        assert scores(pair["shadow"]["results"]) == pytest.approx(expected["new"], abs=1e-4)
        assert (pair["primary"]["errors"], pair["shadow"]["errors"]) == (1, 1)


def test_a_model_that_hangs_costs_neither_as_canary_nor_as_shadow_an_answer(
    server: TritonServer, new: TritonServer, tmp_path: Path
) -> None:
    expected = direct(server)
    bounded = SHADOW.replace("share", "timeout_s = 2.0\nmax_running = 2\nshare")
    with ExitStack() as stack:
        proxy = stack.enter_context(FaultProxy(new.grpc_url))
        gateway, client = run(stack, tmp_path, server, proxy.address, ARMS + bounded)
        proxy.behave(Fault.SILENT)
        with ThreadPoolExecutor(6) as pool:
            bodies = list(pool.map(lambda number: ask(client, number, timeout_ms=8000), range(40)))
        arms = [body["experiment"]["arm"] for body in bodies]
        for body in bodies:
            assert scores(body["results"]) == pytest.approx(expected, abs=1e-5)
        assert metric(client, 'fallbacks_total{arm="new",reason="timeout"}') > 0
        assert metric(client, "fallbacks_total") == arms.count("new")
        assert metric(client, "failures_total") == 0
        # Every answer is the control's, so the shadow was offered every call: it was sent, or it was dropped.
        wait(lambda: metric(client, "shadow_calls_total") + metric(client, "shadow_dropped_total") == len(arms))
        assert metric(client, 'shadow_calls_total{outcome="timeout"}') > 0
        assert metric(client, 'shadow_calls_total{outcome="answered"}') == 0
        assert metric(client, "shadow_dropped_total") > 0
        stop(gateway)
    done = CliRunner().invoke(evaluate, ["ab-report", str(tmp_path / "records"), "--json"])
    report = json.loads(done.stdout)
    fallbacks = {arm["arm"]: sum(arm["fallbacks"].values()) for arm in report["arms"]}
    assert fallbacks == {"control": 0, "new": arms.count("new")}
    (shadow,) = report["shadows"]
    assert (shadow["calls"], shadow["tau"]) == (sum(shadow["failures"].values()), None)


def test_a_stop_waits_for_no_shadow_and_leaves_none(server: TritonServer, new: TritonServer, tmp_path: Path) -> None:
    expected = direct(server)
    endless = SHADOW.replace("share", "timeout_s = 600.0\nshare")
    with ExitStack() as stack:
        proxy = stack.enter_context(FaultProxy(new.grpc_url))
        long = ("--timeout-s", "600", "--drain-timeout-s", "600")
        gateway, client = run(stack, tmp_path, server, proxy.address, endless, *long)
        proxy.behave(Fault.SILENT)
        for number in range(5):
            assert scores(ask(client, number)["results"]) == pytest.approx(expected, abs=1e-5)
        assert shadows_now(client) > 0
        stop(gateway)  # 600 seconds before the shadows would end by themselves
        lines = gateway.lines()
    assert not [line for line in lines if line["level"] == "ERROR"]
    assert (tmp_path / "gateway.err").read_text(encoding="utf-8") == ""
    assert written(tmp_path) == ""


def test_a_full_disk_costs_records_that_are_counted_and_no_caller_notices(
    server: TritonServer, new: TritonServer, tmp_path: Path
) -> None:
    expected = {"control": direct(server), "new": direct(new)}
    with ExitStack() as stack:
        gateway, client = run(stack, tmp_path, server, new.grpc_url, ARMS + SHADOW)
        _, most = resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE)
        # Files of this process end here, as on a disk that is full: the last write is cut, and those after it fail.
        resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (2**16, most))
        ids: list[str] = []

        def ask_next() -> None:
            body = ask(client, len(ids))
            assert scores(body["results"]) == pytest.approx(expected[body["experiment"]["arm"]], abs=1e-5)
            ids.append(body["ranking_id"])

        wait(lambda: ask_next() or metric(client, "lost_records_total") > 10)
        resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (most, most))
        full = len(ids)
        for _ in range(10):
            ask_next()
        wait(lambda: shadows_now(client) == 0)
        pairs, lost = metric(client, 'shadow_calls_total{outcome="answered"}'), metric(client, "lost_records_total")
        stop(gateway)
        told = [line["message"] for line in gateway.lines() if "records of the experiment are lost" in line["message"]]
    assert told
    done = CliRunner().invoke(evaluate, ["ab-report", str(tmp_path / "records"), "--json"])
    report = json.loads(done.stdout)
    assert len(report["damaged_lines"]) <= 1  # the one that was cut
    text = written(tmp_path)
    assert all(ranking_id in text for ranking_id in ids[full:])
    whole = len([line for line in text.splitlines() if line]) - len(report["damaged_lines"])
    assert whole + lost == len(ids) + pairs
