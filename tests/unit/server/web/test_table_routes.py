"""`POST /v1/tables`: what the page reads files with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.dual_encoder import FakeTransport
from fakes.gateway import HOST
from fastapi.testclient import TestClient
from lychee_evaluate.tables.writing import format_table
from lychee_server.gateway.app import create_app
from lychee_server.gateway.service import Service
from lychee_server.gateway.settings import GatewaySettings
from lychee_server.web import table_routes


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setenv("LYCHEE_CACHE_DIR", str(tmp_path))
    settings = GatewaySettings(web=False, max_request_mb=1)
    service = Service(settings, transport=FakeTransport())
    app = create_app(settings, service=service)
    if "/v1/tables" not in app.openapi()["paths"]:
        app.openapi_schema = None
        table_routes.install(app)
    with TestClient(app, base_url=HOST) as client:
        yield client


def test_columns_rows_and_what_was_found_out(client: TestClient) -> None:
    text = "查询;文档;标签;备注\r\n早晨的咖啡;一杯, 拿铁;是;\r\n\r\n猫;#N/A;否;x\r\na;b;c;d;e\r\n"
    answer = client.post("/v1/tables", params={"name": "标注.csv"}, content=text.encode("gb18030"))
    assert answer.status_code == 200, answer.text
    data = answer.json()
    assert data["columns"] == [
        {"name": "查询", "meaning": "query"},
        {"name": "文档", "meaning": "text"},
        {"name": "标签", "meaning": "relevant"},
        {"name": "备注", "meaning": None},
    ]
    assert data["rows"] == [["早晨的咖啡", "一杯, 拿铁", "是", None], ["猫", None, "否", "x"]]
    assert data["row_numbers"] == [2, 4]
    assert [note["kind"] for note in data["notes"]] == ["encoding_read", "separator_read", "columns_read"]
    assert data["notes"][0]["message"] == {"en": "read as GB18030", "zh": "按 GB18030 读取"}
    assert [(problem["row"], problem["kind"]) for problem in data["problems"]] == [(4, "error_cell"), (5, "torn_row")]


def test_workbook_and_json_lines(client: TestClient) -> None:
    book = format_table([{"query": "猫", "text": "=1+1"}], ["query", "text"], "xlsx")
    data = client.post("/v1/tables", params={"name": "a.xlsx"}, content=book).json()
    assert (data["rows"], data["notes"]) == ([["猫", "=1+1"]], [])
    lines = b'{"query": "\\ud800", "documents": ["a", {"text": "b"}], "n": 1.5, "t": true, "x": null}\n'
    data = client.post("/v1/tables", params={"name": "a.jsonl"}, content=lines).json()
    assert data["rows"] == [["?", '["a", {"text": "b"}]', "1.5", "true", None]]
    assert [column["meaning"] for column in data["columns"]] == ["query", None, None, None, None]


def test_error_has_the_gateways_shape_and_both_languages(client: TestClient) -> None:
    answer = client.post("/v1/tables", params={"name": "a.xls"}, content=b"x")
    data = answer.json()
    assert (answer.status_code, data["type"], data["error"]["code"]) == (400, "invalid_table", "invalid_table")
    assert data["message"].startswith("a.xls: it is a workbook of the old format")
    (error,) = data["errors"]
    assert (error["kind"], set(error["message"])) == ("old_workbook", {"en", "zh"})


def test_encoding_can_be_said(client: TestClient) -> None:
    content = "query,text\ncat,苹果\n".encode("gbk")
    unclear = client.post("/v1/tables", params={"name": "a.csv"}, content=content)
    assert unclear.json()["errors"][0]["kind"] == "encoding_unclear"
    said = client.post("/v1/tables", params={"name": "a.csv", "encoding": "gb18030"}, content=content)
    assert said.json()["rows"] == [["cat", "苹果"]]


def test_name_is_needed(client: TestClient) -> None:
    answer = client.post("/v1/tables", content=b"query\na\n")
    assert (answer.status_code, answer.json()["type"]) == (422, "invalid_shape")


@pytest.mark.parametrize(("limit", "kind"), [("MAX_ROWS", "too_many_rows"), ("MAX_CELLS", "too_many_cells")])
def test_tables_are_bounded(client: TestClient, limit: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_routes, limit, 3)
    content = b"query,text\na,b\nc,d\n"
    assert (client.post("/v1/tables?name=a.csv", content=content).status_code == 200) == (limit == "MAX_ROWS")
    answer = client.post("/v1/tables?name=a.csv", content=content + b"e,f\ng,h\n")
    assert answer.json()["errors"][0]["kind"] == kind


def test_file_is_bounded(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_routes, "MAX_BYTES", 10)
    answer = client.post("/v1/tables?name=a.csv", content=b"query,text\na,b\n")
    assert answer.json()["errors"][0]["kind"] == "too_large"


def test_body_is_bounded(client: TestClient) -> None:
    answer = client.post("/v1/tables?name=a.csv", content=b"x" * (2**20 + 1))
    assert (answer.status_code, answer.json()["type"]) == (413, "too_large")
