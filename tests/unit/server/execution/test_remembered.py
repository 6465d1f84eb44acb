"""What a remembered choice depends on, and what it does not."""

from __future__ import annotations

from pathlib import Path

from lychee_server.execution.measurement import Task
from lychee_server.execution.reference_rows import Step
from lychee_server.execution.remembered import describe_circumstances


def make_task(folder: Path, tensors: dict[str, str]) -> Task:
    return Task(str(folder / "rows.npz"), {}, {"rerank": [Step("head", tensors, {"score": "score"})]}, 0.01, None)


def test_the_order_of_an_ensembles_tensors_is_no_circumstance(tmp_path: Path) -> None:
    tensors = {"input_ids": "query_ids", "attention_mask": "query_mask"}
    described = describe_circumstances(make_task(tmp_path, tensors))
    assert describe_circumstances(make_task(tmp_path, dict(reversed(tensors.items())))) == described
    assert describe_circumstances(make_task(tmp_path, tensors | {"input_ids": "document_ids"})) != described
