"""`/v1/calibration`: what decides, and a calibration in its place, at once and after a restart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.calibrations import make_calibration
from fakes.dual_encoder import MANIFEST, FakeTransport
from fakes.gateway import serve, serve_several
from fastapi.testclient import TestClient
from lychee_client import Calibration
from lychee_client.manifest.manifest import ModelIdentity
from lychee_server.gateway.own_calibration import FILE, warn_of_others_calibration

PATH = "/v1/calibration"
CALL = {"query": "aaaa", "documents": ["aaaa", "bbbb"]}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LYCHEE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("LYCHEE_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def client() -> Iterator[TestClient]:
    with serve() as client:
        yield client


def make(threshold: float = 1.0, instruction: str | None = None, **identity: Any) -> Calibration:
    values = {name: MANIFEST[name] for name in ("model_id", "revision", "precision")}
    return make_calibration(
        ModelIdentity(**{**values, "artifacts": {}, "execution": {}, **identity}), threshold, instruction
    )


def decide(client: TestClient) -> list[str]:
    answer = client.post("/v1/rerank", json=CALL).json()
    assert answer["warnings"] == []
    return [result["decision"] for result in answer["results"]]


def test_calibration_decides_at_once_and_the_settings_again_when_it_is_gone(client: TestClient, folder: Path) -> None:
    before = client.get(PATH).json()
    assert (before["default_policy"], before["source"], before["changeable"]) == ("balanced", "settings", True)
    assert before["accept"] == 0.55
    assert "accept" in decide(client)
    taken = client.put(PATH, content=make().to_bytes())
    assert taken.status_code == 200, taken.text
    assert taken.json() == client.get(PATH).json()
    assert (taken.json()["default_policy"], taken.json()["source"]) == ("calibration", "put")
    assert taken.json()["calibration"] == make().to_json()
    assert taken.json()["since"] > before["since"]
    assert decide(client) == ["reject", "reject"]
    settings = client.get("/v1/settings").json()
    assert settings["default_policy"] == "calibration"
    assert {"name": "calibration", "accept": 1.0, "review": 1.0} in settings["policies"]
    labels = 'method="PUT",modality="none",model="default",route="/v1/calibration",status="200"'
    assert f"lychee_gateway_requests_total{{{labels}}} 1.0" in client.get("/metrics").text
    assert client.delete(PATH).json()["default_policy"] == "balanced"
    assert "accept" in decide(client)
    assert not (folder / FILE).exists()


def test_calibration_is_kept_for_the_next_start_unless_the_settings_choose(client: TestClient, folder: Path) -> None:
    client.put(PATH, content=make().to_bytes())
    assert Calibration.load(folder / FILE) == make()
    with serve() as again:
        assert again.get(PATH).json()["source"] == "put"
        assert decide(again) == ["reject", "reject"]
    with serve(policy="strict") as chosen:
        assert chosen.get(PATH).json()["default_policy"] == "strict"
        warnings = chosen.put(PATH, content=make().to_bytes()).json()["warnings"]
        assert any("started with --policy" in warning for warning in warnings)


def test_damaged_file_costs_the_start_nothing(folder: Path) -> None:
    folder.mkdir()
    (folder / FILE).write_text("{")
    with serve() as client:
        assert client.get(PATH).json()["default_policy"] == "balanced"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"model_id": "other"}, "model_id 'other', and 'fake' is served"),
        ({"revision": "1"}, "revision '1'"),
        ({"precision": "int8"}, "precision 'int8'"),
        ({"instruction": "Find it."}, "the served model reads none"),
    ],
)
def test_calibration_of_another_model_is_refused(
    client: TestClient, folder: Path, changed: dict[str, str], told: str
) -> None:
    answer = client.put(PATH, content=make(**changed).to_bytes())
    assert (answer.status_code, answer.json()["type"]) == (409, "calibration_mismatch")
    assert told in answer.json()["message"]
    assert not (folder / FILE).exists()
    assert client.get(PATH).json()["source"] == "settings"


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff", b"[]", json.dumps({"threshold": 2}).encode()])
def test_what_is_no_calibration_is_refused(client: TestClient, body: bytes) -> None:
    answer = client.put(PATH, content=body)
    assert (answer.status_code, answer.json()["type"]) == (400, "invalid_request")
    assert "send the file that `lychee calibrate` or the page wrote" in answer.json()["message"]


@pytest.mark.parametrize("method", ["put", "delete"])
def test_open_gateway_on_the_network_is_changed_by_nobody(method: str) -> None:
    with serve(host="0.0.0.0") as client:
        content = {"content": make().to_bytes()} if method == "put" else {}
        answer = client.request(method, PATH, **content)  # type: ignore[arg-type]
        assert (answer.status_code, answer.json()["type"]) == (403, "forbidden")
        assert "--api-keys-file" in answer.json()["message"]
        assert client.get(PATH).json()["changeable"] is False


def test_gateway_with_keys_takes_it_from_who_has_one() -> None:
    with serve(host="0.0.0.0", api_keys=("secret",)) as client:
        assert client.put(PATH, content=make().to_bytes()).status_code == 401
        headers = {"x-api-key": "secret"}
        assert client.put(PATH, content=make().to_bytes(), headers=headers).status_code == 200


def test_folder_that_cannot_be_written_leaves_everything_as_it_was(client: TestClient, folder: Path) -> None:
    folder.write_text("a file")
    answer = client.put(PATH, content=make().to_bytes())
    assert (answer.status_code, answer.json()["type"]) == (507, "not_kept")
    assert client.get(PATH).json()["source"] == "settings"


def test_each_of_several_models_has_its_own_also_after_a_restart(folder: Path) -> None:
    def transports() -> dict[str, FakeTransport]:
        return {name: FakeTransport(manifest={"model_id": name}) for name in ("a", "b")}

    def thresholds(client: TestClient) -> list[tuple[str, float]]:
        told = [client.get(PATH, params={"model": name}).json() for name in ("a", "b")]
        return [(each["source"], each["accept"]) for each in told]

    with serve_several(transports()) as client:
        refused = client.put(PATH, content=make(0.8, model_id="b").to_bytes())
        assert refused.status_code == 409
        assert client.put(PATH, params={"model": "b"}, content=make(0.8, model_id="b").to_bytes()).status_code == 200
        assert thresholds(client) == [("settings", 0.55), ("put", 0.8)]
    assert [path.name for path in folder.iterdir()] == ["gateway-calibration.b.json"]
    with serve_several(transports()) as client:
        assert thresholds(client) == [("settings", 0.55), ("put", 0.8)]
        assert client.put(PATH, content=make(0.7, model_id="a").to_bytes()).status_code == 200
        assert client.delete(PATH, params={"model": "b"}).status_code == 200
        assert thresholds(client) == [("put", 0.7), ("settings", 0.55)]


def test_calibration_of_a_single_model_is_told_where_it_decides_no_more(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_others_calibration()
    assert not caplog.records
    folder.mkdir()
    (folder / FILE).write_bytes(make().to_bytes())
    warn_of_others_calibration()
    assert f"({FILE}) decides for none of several" in caplog.text
