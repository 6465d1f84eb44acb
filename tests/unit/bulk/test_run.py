"""Runs as far as they come without Ray: plans, and outputs that are left alone."""

import json
from pathlib import Path
from typing import Any

import pytest
from lychee_bulk.errors import BulkError, InputError, OutputError, ServerLostError
from lychee_bulk.manifest import NAME, SUCCESS, Plan, write_manifest
from lychee_bulk.options import ScoringOptions
from lychee_bulk.run import find_reason, make_plan, run
from lychee_bulk.storage import Folder
from lychee_bulk.units import Unit, UnitSize
from lychee_client import ConfigurationError

from .bulk_parts import make_model


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.csv"
    path.write_text("query,text,sku,logit\na,b,1,2\n")
    return path


def plan(source: Path, **options: Any) -> Plan:
    return make_plan(str(source), ScoringOptions(), **options)


def complete(source: Path, output: Path) -> None:
    """Write the output of a complete run with parts of 7 rows."""
    output.mkdir()
    manifest = plan(source, size=UnitSize(7, 70)).to_json(make_model())
    counts = {"rows": 1, "scored": 1, "errors": {}, "warnings": ["beware"]}
    write_manifest(Folder(str(output)), {**manifest, **counts, "complete": True})
    (output / SUCCESS).touch()


def test_a_complete_output_is_told_of_and_nothing_is_started(source: Path, tmp_path: Path) -> None:
    complete(source, tmp_path / "scores")
    report = run(plan(source, size=UnitSize(9, 90)), str(tmp_path / "scores"))
    assert (report.was_complete, report.tally.rows, report.tally.warnings) == (True, 1, ("beware",))
    assert (report.model["model_id"], report.rows_per_second) == ("mini", 0.0)


def test_an_output_of_another_run_is_refused(source: Path, tmp_path: Path) -> None:
    complete(source, tmp_path / "scores")
    with pytest.raises(OutputError, match="a run in which --keep-columns differed"):
        run(plan(source, kept=("sku",)), str(tmp_path / "scores"))


def test_parts_without_a_manifest_are_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / Unit(0, 0, 1, True).name).touch()
    with pytest.raises(OutputError, match=f"holds parts and no {NAME}; give another folder, or --overwrite"):
        run(plan(source), str(tmp_path))


def test_an_output_inside_the_input_is_refused(source: Path) -> None:
    for output in (source.parent / "scores", source.parent):
        with pytest.raises(OutputError, match="is inside the input"):
            run(plan(source.parent), str(output))
    (source.parent / "x").mkdir()
    (source.parent / "x" / Unit(0, 0, 1, True).name).touch()
    with pytest.raises(OutputError, match="holds parts"):  # a file beside it is no folder around it
        run(plan(source), str(source.parent / "x"))


@pytest.mark.parametrize(
    ("kept", "reason"), [("title", "names 'title'; the input has 'query'"), ("logit", "'logit', which the output has")]
)
def test_columns_that_cannot_be_kept_are_refused(source: Path, kept: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        plan(source, kept=(kept,))


def test_an_input_without_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n[1]\n")
    with pytest.raises(InputError, match="has no rows"):
        plan(tmp_path / "a.jsonl")


def test_columns_are_those_of_all_files(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    (tmp_path / "b.jsonl").write_text(json.dumps({"question": "a", "text": "b"}))
    (tmp_path / "c.jsonl").write_text(json.dumps({"question": "a", "image": "b.jpg"}))
    columns, files = plan(tmp_path).columns, plan(tmp_path).files
    assert (columns.query, columns.document, columns.document_image, len(files)) == ("question", "text", "image", 3)


def test_the_reason_is_found_behind_what_others_raise() -> None:
    reason = ServerLostError("it is away")
    error = RuntimeError("the actor died")
    error.__cause__ = ExceptionGroup("tasks", [ValueError(), ExceptionGroup("more", [reason])])
    assert find_reason(error) is reason
    wrapped = RuntimeError("a task failed")
    wrapped.cause = ConfigurationError("bad URL")  # type: ignore[attr-defined]
    assert find_reason(wrapped) is wrapped.cause  # type: ignore[attr-defined]
    other = ValueError("something else")
    other.__context__ = other
    assert find_reason(other) is other
    assert isinstance(reason, BulkError)
