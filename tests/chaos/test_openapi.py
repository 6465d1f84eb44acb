"""What the description promises, asked by a program that knows nothing else: it finds no error of the server."""

from __future__ import annotations

from typing import Any, Final

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings

from .conftest import ERROR_KEYS, IS_CHAOS, URL

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed; run `make setup`")

EXAMPLES: Final = 300 if IS_CHAOS else 40
CALLS: Final = {"/v1/rerank", "/v2/rerank", "/rerank", "/v1/ranking", "/v1/score"}
PROBES: Final = {"/health", "/health/ready"}  # they answer 503 where the model is not there yet

pytestmark = pytest.mark.filterwarnings("ignore::lychee_client.LycheeWarning")


@pytest.fixture(scope="module")
def operations(client: TestClient) -> list[Any]:
    schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
    return [result.ok() for result in schema.get_all_operations()]


@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
def test_no_call_that_the_description_allows_or_forbids_is_an_error_of_the_server(
    operations: list[Any], client: TestClient, mode: str
) -> None:
    statuses: set[int] = set()
    for operation in operations:
        if mode == "NEGATIVE" and operation.path not in CALLS:
            continue  # nothing in it could be wrong

        @settings(
            max_examples=EXAMPLES if operation.path in CALLS else 5,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode[mode]))
        def ask(case: Any) -> None:
            sent = case.as_transport_kwargs(base_url=URL)
            body = {"content": sent["data"]} if sent.get("data") else {"json": sent["json"]} if "json" in sent else {}
            answer = client.request(sent["method"], sent["url"], headers=sent["headers"], params=sent["params"], **body)
            statuses.add(answer.status_code)
            is_expected = (case.path in PROBES and answer.status_code == 503) or (
                answer.status_code == 504 and "timeout_ms" in str(case.body)
            )
            assert answer.status_code < 500 or is_expected, (sent, answer.text)
            if answer.status_code >= 400 and case.path in CALLS:
                assert set(answer.json()) >= ERROR_KEYS  # some vendors' clients read more

        ask()
    assert (200 in statuses) or mode == "NEGATIVE"
