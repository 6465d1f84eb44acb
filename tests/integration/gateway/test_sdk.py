"""A client whose URL is the gateway's gives the same answers as one whose URL is Triton's."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from lychee_client import (
    AsyncLycheeClient,
    Calibration,
    ConfigurationError,
    Image,
    Images,
    ImageText,
    InvalidInputError,
    LycheeClient,
    LycheeWarning,
    ModelNotReadyError,
    Policy,
    RequestRejectedError,
    RerankOptions,
    RerankResponse,
    Text,
)
from lychee_client.score_mapping import PlattMapping
from lychee_server import TritonServer

from .conftest import API_KEY
from .running_gateway import RunningGateway, run_gateway

pytestmark = pytest.mark.triton

QUERY = "一只猫"
TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def rest(gateway: RunningGateway) -> Iterator[LycheeClient]:
    """Connect to the gateway."""
    with LycheeClient(gateway.url, api_key=API_KEY) as connected:
        connected.wait_until_ready()
        yield connected


def turned_photo(path: Path) -> bytes:
    """Return a photo that lies on its side, as its Exif says."""
    file, exif = io.BytesIO(), PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.open(path).save(file, "JPEG", exif=exif)
    return file.getvalue()


@pytest.fixture(scope="module")
def documents(photos: Path) -> list[Any]:
    """Return documents of all kinds, some of them bad."""
    cat, rocket = photos / "cat.jpg", photos / "rocket.jpg"
    opened = PIL.Image.open(rocket)
    wide = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
    transparent = PIL.Image.new("RGBA", (70, 50), (200, 10, 10, 100))
    return [
        "店里的小猫喜欢在窗台上晒太阳。",
        Text("a cup of coffee"),
        "小猫",
        "小猫",
        Image.from_path(cat),
        Image.from_bytes(rocket.read_bytes()),
        Image.from_bytes(turned_photo(cat)),
        Image.from_pil(PIL.Image.open(io.BytesIO(turned_photo(cat)))),
        Image.from_pil(opened),
        Image.from_pil(opened.convert("L")),
        Image.from_pil(PIL.Image.fromarray(wide)),
        Image.from_pil(transparent),
        Image.from_numpy(np.asarray(opened.resize((300, 200)))),
        ImageText(Image.from_path(cat), "虎斑猫，两岁"),
        ImageText(Images([Image.from_path(rocket)]), "a rocket"),
        Images([Image.from_path(cat)]),
        "",
        "word " * 3000,
        Image.from_bytes(b"no image"),
        Image.from_bytes(cat.read_bytes()[:1000]),
        Image.from_path(photos / "missing.jpg"),
        Images([Image.from_path(cat), Image.from_path(rocket)]),
        7,
        "data:image/png;base64,AAAA",
    ]


def assert_same(answer: RerankResponse, expected: RerankResponse) -> None:
    """Compare field by field, times and what a cache saved left out."""
    assert len(answer) == len(expected)
    for ours, theirs in zip(answer, expected, strict=True):
        numbers = {name: getattr(theirs, name) for name in ("relevance_score", "logit")}
        assert dataclasses.replace(ours, **numbers) == theirs
        assert ours.relevance_score == pytest.approx(theirs.relevance_score, abs=TOLERANCE)
        assert ours.logit == pytest.approx(theirs.logit, abs=1e-4)
    assert [(failed.index, type(failed.error)) for failed in answer.errors] == [
        (failed.index, type(failed.error)) for failed in expected.errors
    ]
    assert [getattr(failed.error, "index", None) for failed in answer.errors] == [
        getattr(failed.error, "index", None) for failed in expected.errors
    ]
    for name in ("model", "instruction", "warnings", "query"):
        assert getattr(answer, name) == getattr(expected, name), name


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"top_n": 3, "return_documents": True},
        {"score_threshold": 0.5, "min_results": 2, "policy": "strict"},
        {"score_threshold": 0.999, "min_results": 1, "policy": Policy("mine", accept=0.8, review=0.1)},
        {"priority": "bulk", "policy": "exploratory", "request_id": "mine.1", "timeout_s": 60.0},
    ],
    ids=["plain", "documents", "threshold", "policy", "bulk"],
)
@pytest.mark.filterwarnings("ignore::lychee_client.LycheeWarning")
def test_answers_are_the_same(
    options: RerankOptions, rest: LycheeClient, client: LycheeClient, documents: list[Any]
) -> None:
    assert_same(rest.rerank(QUERY, documents, **options), client.rerank(QUERY, documents, **options))


@pytest.mark.filterwarnings("ignore::lychee_client.LycheeWarning")
def test_queries_of_every_kind(rest: LycheeClient, client: LycheeClient, documents: list[Any], photos: Path) -> None:
    cat = Image.from_path(photos / "cat.jpg")
    for query in (cat, ImageText(cat, QUERY), Text("long " * 3000)):
        assert_same(rest.rerank(query, documents[:6]), client.rerank(query, documents[:6]))
    with pytest.raises(InvalidInputError, match="query"):
        rest.rerank(Image.from_bytes(b"no image"), ["a"])


@pytest.mark.filterwarnings("ignore::lychee_client.LycheeWarning")
def test_async_answers_are_the_same(gateway: RunningGateway, client: LycheeClient, documents: list[Any]) -> None:
    async def call() -> tuple[RerankResponse, float, list[int]]:
        async with AsyncLycheeClient(gateway.url, headers={"authorization": f"Bearer {API_KEY}"}) as asynchronous:
            response = await asynchronous.rerank(QUERY, documents)
            score = await asynchronous.score(QUERY, "小猫")
            outcomes = asynchronous.rerank_many([(QUERY, documents[:2])] * 3, concurrency=2)
            return response, score, [len(one.response or ()) async for one in outcomes]

    response, score, counts = asyncio.run(call())
    assert_same(response, client.rerank(QUERY, documents))
    assert score == pytest.approx(client.score(QUERY, "小猫"), abs=TOLERANCE)
    assert counts == [2, 2, 2]


def make_calibration(client: LycheeClient, **changes: Any) -> Calibration:
    manifest = client.manifest()
    fields: dict[str, Any] = {
        "created_at": "2026-11-27T00:00:00Z",
        "client_version": "0",
        "model": manifest.identity,
        "instruction": None,
        "target": "f1",
        "threshold": 0.6,
        "threshold_low": 0.5,
        "threshold_high": 0.7,
        "confidence": 0.95,
        "review_threshold": 0.2,
        "precision": 1.0,
        "recall": 1.0,
        "f1": 1.0,
        "pairs": 2,
        "positives": 1,
        "queries": 1,
        "mapping": PlattMapping(1.5, -0.25),
        "data_sha256": "0" * 64,
    }
    return Calibration(**fields | changes)


@pytest.mark.filterwarnings("error")
def test_a_calibration_fits_and_decides_the_same(
    rest: LycheeClient, client: LycheeClient, documents: list[Any]
) -> None:
    calibration = make_calibration(client)
    answer = rest.rerank(QUERY, documents[:9], policy=calibration)
    assert_same(answer, client.rerank(QUERY, documents[:9], policy=calibration))
    assert {result.decision for result in answer} >= {"accept", "reject"}


def test_a_calibration_of_another_file_is_told(rest: LycheeClient, client: LycheeClient) -> None:
    identity = client.manifest().identity
    artifacts = dict(identity.artifacts) | {"tokenizer": "f" * 64}
    other = type(identity)(identity.model_id, identity.revision, identity.precision, artifacts)
    calibration = make_calibration(client, model=other)
    with pytest.warns(LycheeWarning, match="the calibration may not fit: it was made with tokenizer"):
        answer = rest.rerank(QUERY, ["a"], policy=calibration)
    with pytest.warns(LycheeWarning, match="may not fit"):
        assert_same(answer, client.rerank(QUERY, ["a"], policy=calibration))


def test_options_that_the_gateway_answers_itself(rest: LycheeClient, gateway: RunningGateway) -> None:
    with pytest.warns(LycheeWarning, match="reads no instruction"):
        response = rest.rerank(QUERY, ["小猫"], instruction="find cats", server_timings=True)
    assert response.instruction is None
    assert response.timings.server is not None
    assert response.timings.server["text_encoder"].requests >= 1
    assert response.timings.total_ms >= response.timings.score_documents_ms > 0
    assert rest.rerank(QUERY, ["小猫"]).embedding_cache is not None
    assert rest.is_ready()
    assert rest.server_status().gateway
    rest.rerank(QUERY, ["小猫"], request_id="seen-in-the-log")
    assert any(line.get("request_id") == "seen-in-the-log" for line in gateway.lines())


def test_what_the_gateway_refuses_is_told(rest: LycheeClient, gateway: RunningGateway) -> None:
    with pytest.raises(ConfigurationError, match="1001 entries; expected 1 to 1000"):
        rest.rerank(QUERY, ["a"] * 1001)
    with pytest.raises(ConfigurationError, match=r"manifest\(\) needs Triton's own address"):
        rest.manifest()
    with LycheeClient(gateway.url) as keyless:
        assert keyless.is_ready()
        with pytest.raises(RequestRejectedError, match="no API key was sent") as caught:
            keyless.score(QUERY, "a")
    assert caught.value.status == "401"


def test_a_dead_triton_is_told_and_its_return_is_seen(repository: Path, tmp_path: Path) -> None:
    ports = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
    with TritonServer(repository, config_name="cpu", **ports, log_path=tmp_path / "triton.log") as triton:
        url, fixed = triton.grpc_url, int(triton.grpc_url.rpartition(":")[2])
        gateway_folder = tmp_path / "gateway"
        gateway_folder.mkdir()
        with run_gateway(gateway_folder, url, "--no-web") as gateway, LycheeClient(gateway.url) as rest:
            rest.wait_until_ready(120)
            expected = rest.score(QUERY, "小猫")
            triton.stop()
            gateway.wait_for("/health/ready", 503)
            with pytest.raises(ModelNotReadyError) as caught:
                rest.score(QUERY, "小猫")
            assert caught.value.status == "503"
            assert not rest.is_ready()
            status = rest.server_status()
            assert (status.live, status.ready, status.gateway) == (True, False, True)
            ports["grpc_port"] = fixed
            with TritonServer(repository, config_name="cpu", **ports, log_path=tmp_path / "triton-2.log"):
                rest.wait_until_ready(120)
                assert rest.score(QUERY, "小猫") == pytest.approx(expected, abs=TOLERANCE)


def run_lychee(gateway: RunningGateway, *arguments: str, key: str = API_KEY) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lychee")), *arguments]
    environment = os.environ | {"LYCHEE_URL": gateway.url, "LYCHEE_API_KEY": key}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


def test_the_commands_speak_to_a_gateway(gateway: RunningGateway, client: LycheeClient, photos: Path) -> None:
    cat, rocket = str(photos / "cat.jpg"), str(photos / "rocket.jpg")
    ranked = run_lychee(gateway, "rerank", "--url", gateway.url, "--query", "a cat", "--json", rocket, cat)
    assert ranked.returncode == 0, ranked.stderr
    results = json.loads(ranked.stdout)["results"]
    expected = client.rerank("a cat", [Image.from_path(rocket), Image.from_path(cat)])
    assert [result["relevance_score"] for result in results] == pytest.approx(
        [result.relevance_score for result in expected], abs=TOLERANCE
    )
    scored = run_lychee(gateway, "score", "--query", "a cat", "--image", cat, "--text", "cat")
    assert (scored.returncode, "accept" in scored.stdout) == (0, True), scored.stderr
    checked = run_lychee(gateway, "doctor")
    assert "a gateway (REST) that serves lychee-mini" in checked.stdout
    assert "a gateway answers in Triton's place" in checked.stdout
    refused = run_lychee(gateway, "score", "--query", "a cat", "--text", "cat", key="wrong-key")
    assert refused.returncode == 1
    assert "the API key is not known here" in refused.stderr
    assert "wrong-key" not in refused.stderr
