"""`POST /v1/calibrations` on the fake transport."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from fakes.dual_encoder import FakeTransport
from fakes.gateway import serve
from fastapi.testclient import TestClient
from lychee_client import Calibration
from lychee_server.web import calibration_routes
from lychee_server.web.calibration_job import Job, Progress

QUERIES = ("猫", "car", "rocket", "flower", "wall", "coffee")
PATH = "/v1/calibrations"


@pytest.fixture(autouse=True)
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LYCHEE_CACHE_DIR", str(tmp_path))


@pytest.fixture
def client() -> Iterator[TestClient]:
    with serve(web=True) as client:
        yield client


def make_pairs(queries: tuple[str, ...] = QUERIES) -> list[dict[str, Any]]:
    pairs: list[dict[str, Any]] = []
    for number, query in enumerate(queries):
        other = queries[(number + 3) % len(queries)]
        pairs += [{"query": query, "document": query, "relevant": True}]
        pairs += [{"query": {"text": query}, "text": f"{query} {query}", "relevant": 1}]
        pairs += [{"query": query, "document": {"text": other * 3}, "relevant": False}]
        pairs += [{"query": query, "document": f"{other} 1234", "relevant": 0}]
    return pairs


def read_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_labels_of_a_page_become_progress_and_an_outcome(client: TestClient) -> None:
    answer = client.post(PATH, json={"pairs": make_pairs()})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    *progress, outcome = read_lines(answer.text)
    assert {line["event"] for line in progress} == {"progress"}
    assert (progress[0]["done"], progress[-1]) == (0, {"event": "progress", "done": 24, "total": 24})
    assert outcome["event"] == "outcome"
    assert outcome["skipped"] == {"rows": 0, "reasons": [], "further": 0}
    found = outcome["calibration"]
    assert found["pairs"] == 24
    assert any(row["threshold"] == found["threshold"] for row in outcome["table"])
    assert {"thresholds", "precision", "recall", "f1", "accepted", "relevant", "irrelevant"} == set(outcome["curve"])
    assert all(set(doubt) == {"kind", "values", "message"} for doubt in outcome["doubts"])


def test_calibration_in_the_outcome_is_the_file(client: TestClient, tmp_path: Path) -> None:
    outcome = read_lines(client.post(PATH, params={"example": True}).text)[-1]
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(outcome["calibration"]), encoding="utf-8")
    assert Calibration.load(path).pairs == 112


def test_table_is_read_by_its_name(client: TestClient) -> None:
    table = "query,text,relevant\n" + "".join(f"{each},{each},{n % 2}\n" for each in QUERIES for n in range(4))
    first = read_lines(client.post(PATH, params={"name": "a.csv"}, content=table).text)[-1]
    assert first["kind"] == "too_few_pairs"  # of equal pairs none counts
    assert first["values"] == {"pairs": 0, "minimum": 20, "advised": 50}
    assert first["skipped"]["rows"] == 24
    second = read_lines(client.post(PATH, params={"name": "a.pdf"}, content=table).text)
    assert [line["kind"] for line in second] == ["table"]
    assert set(second[0]["wording"]) == {"en", "zh"}


def test_images_of_json_pairs_are_data_urls(client: TestClient) -> None:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (30, 20), "red").save(buffer, "PNG")
    url = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    pairs = [*make_pairs(), {"query": "car", "document": {"image": url}, "relevant": False}]
    pairs += [{"query": "car", "document": {"image": "/etc/passwd"}, "relevant": False}]
    outcome = read_lines(client.post(PATH, json={"pairs": pairs}).text)[-1]
    assert outcome["calibration"]["pairs"] == 25
    assert "'/etc/passwd' did not come with the table" in outcome["skipped"]["reasons"][0]["reason"]


@pytest.mark.parametrize("body", [b"{}", b"[]", b"{", b'{"pairs": 3}', b'{"pairs": ["a"]}'])
def test_json_that_is_no_pairs_is_refused(client: TestClient, body: bytes) -> None:
    answer = client.post(PATH, content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["type"]) == (400, "pairs_shape")
    assert '{"pairs": [{"query"' in answer.json()["message"]


def test_missing_body_is_refused(client: TestClient) -> None:
    answer = client.post(PATH)
    assert (answer.status_code, answer.json()["type"]) == (400, "no_file")


def test_problem_of_an_option_is_a_line(client: TestClient) -> None:
    (line,) = read_lines(client.post(PATH, params={"target": "precision>=2"}, json={"pairs": make_pairs()}).text)
    assert (line["event"], line["kind"], line["values"]) == ("problem", "target", {})


def test_third_job_is_told_to_come_again(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration_routes, "MAX_JOBS", 0)
    answer = client.post(PATH, json={"pairs": make_pairs()})
    assert (answer.status_code, answer.json()["type"]) == (429, "too_busy")
    assert answer.headers["retry-after"] == "10"


def test_who_hangs_up_ends_the_job_and_frees_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []

    async def endless(service: Any, job: Job) -> AsyncIterator[Progress]:
        try:
            while True:
                yield Progress(1, 2)
                await asyncio.sleep(0.01)
        finally:
            ended.append(True)

    monkeypatch.setattr(calibration_routes, "run_job", endless)

    async def hang_up() -> int:
        with serve(FakeTransport(), web=True) as client:
            app = client.app
            received = asyncio.Event()
            messages = iter([{"type": "http.request", "body": b"a", "more_body": False}])

            async def receive() -> Any:
                message = next(messages, None)
                if message is None:
                    await received.wait()
                    return {"type": "http.disconnect"}
                return message

            async def send(message: Any) -> None:
                if message["type"] == "http.response.body":
                    received.set()

            headers = [(b"host", b"127.0.0.1:7860")]
            scope = {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "method": "POST", "path": PATH}
            scope |= {"headers": headers, "query_string": b"", "raw_path": PATH.encode(), "scheme": "http"}
            scope |= {"server": ("127.0.0.1", 7860), "client": ("127.0.0.1", 1), "root_path": "", "http_version": "1.1"}
            async with asyncio.timeout(10):
                await app(scope, receive, send)  # type: ignore[operator]
        return len(ended)

    assert asyncio.run(hang_up()) == 1
