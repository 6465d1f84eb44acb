"""The manifest of a run: what a second one may not change."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lychee_bulk.columns import Columns
from lychee_bulk.errors import OutputError
from lychee_bulk.manifest import NAME, Plan, check_same, read_manifest, write_manifest
from lychee_bulk.options import ScoringOptions
from lychee_bulk.storage import Folder, InputFile
from lychee_bulk.units import UnitSize
from lychee_client.thresholds import Policy

from .bulk_parts import make_model

FILE = InputFile("/data/a.csv", "a.csv", "csv", 10, "1.5")
PLAN = Plan("/data/a.csv", (FILE,), Columns(query="查询", document="b"), ("n",), UnitSize(9, 99), ScoringOptions())
MODEL = make_model()


def test_a_manifest_says_what_scored_what(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    assert read_manifest(folder) is None
    write_manifest(folder, PLAN.to_json(MODEL))
    found = read_manifest(folder)
    assert found is not None
    assert found["model"] == {
        "model_id": "mini",
        "revision": "1" * 12,
        "precision": "fp32",
        "artifacts": {"tokenizer": "0" * 64},
        "execution": {},
        "version": 7,
        "instruction": "Find it",
    }
    assert found["scoring"]["policy"] == {"name": "balanced", "accept": 0.55, "review": 0.55}
    assert found["columns"] == {"query": "查询", "document": "b"}
    assert found["files"] == [{"name": "a.csv", "size_bytes": 10, "mark": "1.5", "kind": "csv"}]
    assert (found["unit"], found["complete"]) == ({"rows": 9, "size_bytes": 99}, False)
    assert found["versions"]["ray"]


def test_the_same_run_goes_on(tmp_path: Path) -> None:
    found = json.loads(json.dumps(PLAN.to_json(MODEL)))
    for wanted in (
        PLAN.to_json(MODEL),
        PLAN.to_json(None),  # the server has not been asked yet
        replace(PLAN, address="./a.csv", options=ScoringOptions("triton:8001", in_flight=3)).to_json(MODEL),
        PLAN.to_json(replace(MODEL, warnings=("beware",))),
    ):
        check_same(Folder(str(tmp_path)), found, wanted)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"files": (replace(FILE, size_bytes=11),)}, "the input"),
        ({"files": (replace(FILE, mark="1.6"),)}, "the input"),
        ({"files": (FILE, FILE)}, "the input"),
        ({"columns": Columns(query="a", document="b")}, "the columns"),
        ({"kept": ()}, "--keep-columns"),
        ({"options": ScoringOptions(instruction="Find cats")}, "the instruction, the policy or --max-img-size"),
        ({"options": ScoringOptions(policy=Policy("balanced", 0.6, 0.6))}, "the instruction, the policy or"),
        ({"options": ScoringOptions(max_img_size=500)}, "the instruction, the policy or"),
    ],
)
def test_a_run_that_scores_otherwise_is_refused(tmp_path: Path, change: dict[str, Any], what: str) -> None:
    found = json.loads(json.dumps(PLAN.to_json(MODEL)))
    with pytest.raises(OutputError, match=rf"holds a run in which {what}.* differed: .* --overwrite"):
        check_same(Folder(str(tmp_path)), found, replace(PLAN, **change).to_json(None))


@pytest.mark.parametrize(
    "other",
    [
        make_model(revision="2" * 12),
        make_model(precision="int8"),
        make_model(version=8),
        make_model(artifacts={"tokenizer": "1" * 64}),
        make_model(execution={"text_encoder": "bf16"}),
        replace(MODEL, instruction="Find other things"),
    ],
)
def test_another_model_is_refused(tmp_path: Path, other: Any) -> None:
    found = json.loads(json.dumps(PLAN.to_json(MODEL)))
    with pytest.raises(OutputError, match="in which the model differed"):
        check_same(Folder(str(tmp_path)), found, PLAN.to_json(other))


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"format": 2}', b'"text"'])
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(OutputError, match="is not a manifest of this version"):
        read_manifest(Folder(str(tmp_path)))
