"""Whole runs on this machine, on one Ray and one Triton for all of them."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from ast import literal_eval
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lychee_client import LycheeClient
from lychee_server import TritonServer

from .bulk_runs import WAIT_S, Rows, bulk, make_rows, parts, read_output, run_bulk, score_one_by_one, write_jsonl
from .conftest import StartCluster
from .ray_cluster import STORE_BYTES

pytestmark = [pytest.mark.triton, pytest.mark.slow]
Run = Callable[..., dict[str, Any]]
PROGRAM = """
import json, sys, ray, lychee_bulk
address, source, url = sys.argv[1:]
ray.init(address=address, log_to_driver=False)
print(json.dumps(lychee_bulk.score(ray.data.read_json(source), url, batch_size=50).take_all()))
"""


@pytest.fixture(scope="module")
def address(start_cluster: StartCluster) -> str:
    """Start one Ray for all tests."""
    return start_cluster(1).address


@pytest.fixture(scope="module")
def run(address: str, server: TritonServer) -> Run:
    """Return what runs the command on that Ray and one Triton, and answers what it says."""
    return lambda source, output, *options: bulk(source, output, server.grpc_url, "--address", address, *options)


@pytest.fixture(scope="module")
def rows() -> Rows:
    return make_rows(130)


@pytest.fixture(scope="module")
def scores(client: LycheeClient, rows: Rows) -> list[float]:
    return score_one_by_one(client, rows)


@pytest.fixture(scope="module")
def scored(run: Run, rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an input and its complete output."""
    folder = tmp_path_factory.mktemp("scored")
    run(write_jsonl(folder / "pairs.jsonl", rows), folder / "scores", "--keep-columns", "n", "--part-rows", "64")
    return folder


def test_json_lines_get_the_scores_of_the_client(scored: Path, rows: Rows, scores: list[float]) -> None:
    output = read_output(scored / "scores")
    assert [row["id"] for row in output] == [f"pairs.jsonl:{number}" for number in range(len(rows))]
    assert [row["n"] for row in output] == [str(number) for number in range(len(rows))]
    assert [row["relevance_score"] for row in output] == pytest.approx(scores, abs=1e-5)
    assert {(row["error"], row["decision"] is None) for row in output} == {(None, False)}


def test_manifest_says_what_scored_what(scored: Path, client: LycheeClient, rows: Rows) -> None:
    manifest = json.loads((scored / "scores" / "_manifest.json").read_text())
    model = client.manifest()
    assert manifest["complete"]
    assert (manifest["rows"], manifest["scored"], manifest["errors"]) == (len(rows), len(rows), {})
    assert manifest["model"]["model_id"] == model.model_id
    assert manifest["model"]["version"] == model.version
    assert manifest["scoring"]["policy"]["name"] == "balanced"
    assert manifest["columns"] == {"query": "query", "document": "document"}


def test_csv_and_parquet_get_the_same_scores(run: Run, rows: Rows, scores: list[float], tmp_path: Path) -> None:
    with (tmp_path / "pairs.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, ["question", "passage", "n"])
        writer.writeheader()
        writer.writerows({"question": row["query"], "passage": row["document"], "n": row["n"]} for row in rows)
    (tmp_path / "folder").mkdir()
    half = len(rows) // 2
    pq.write_table(pa.Table.from_pylist(rows[:half]), tmp_path / "folder" / "a.parquet", row_group_size=50)
    pq.write_table(pa.Table.from_pylist(rows[half:]), tmp_path / "folder" / "b.parquet")
    run(tmp_path / "pairs.csv", tmp_path / "of_csv", "--id", "n")
    run(tmp_path / "folder", tmp_path / "of_parquet", "--keep-columns", "n", "--part-rows", "40")
    of_csv, of_parquet = read_output(tmp_path / "of_csv"), read_output(tmp_path / "of_parquet")
    assert [row["id"] for row in of_csv] == [str(number) for number in range(len(rows))]
    assert [row["relevance_score"] for row in of_csv] == pytest.approx(scores, abs=1e-5)
    assert [row["n"] for row in of_parquet] == list(range(len(rows)))  # with its type
    assert of_parquet[half]["id"] == "b.parquet:0"
    assert [row["relevance_score"] for row in of_parquet] == pytest.approx(scores, abs=1e-5)


def test_bad_rows_of_many_kinds_are_errors_of_their_own(run: Run, root: Path, tmp_path: Path) -> None:
    photo = next((root / "examples/catalogue/photos").iterdir())
    (tmp_path / "photo").symlink_to(photo)
    (tmp_path / "broken.jpg").write_bytes(photo.read_bytes()[:200])
    lines: list[tuple[str | bytes, str | None]] = [
        ('{"query": "a cat", "document": "a small cat"}', None),
        ('{"query": "a cat", "document_image": "photo"}', None),
        ('{"query": "a cat"', "bad_row"),
        ("[1, 2]", "bad_row"),
        (b'{"query": "a cat", "document": "\xff"}', "bad_row"),
        ('{"document": "a small cat"}', "no_query"),
        ('{"query": "a cat", "document": " "}', "no_document"),
        ('{"query": "a cat", "document": 7}', "bad_value"),
        ('{"query": "a \\ud800 cat", "document": "a cat"}', "bad_value"),
        ('{"query": "a cat", "document_image": "nowhere.jpg"}', "image_missing"),
        ('{"query": "a cat", "document_image": "broken.jpg"}', "invalid_input"),
        ('{"query": "a cat", "document_image": "data:image/png;base64,AAAA"}', "invalid_input"),
        ('{"query": "a cat", "document_image": "https://images.example.org/a.jpg"}', "url_refused"),
        ('{"query": "a cat", "document_image": "ftp://example.org/a.jpg"}', "bad_value"),
        ('{"query_image": "broken.jpg", "document": "a cat"}', "invalid_input"),
        ('{"query": "a cat", "document_image": ["photo", "photo"]}', "invalid_input"),
        ('{"query": "a cat", "document": "a dog", "instruction": "a\\u0000b"}', "bad_instruction"),
        ('{"query": "a cat", "document": "a large cat"}', None),
    ]
    source = tmp_path / "bad.jsonl"
    source.write_bytes(b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line, _ in lines))
    report = run(source, tmp_path / "scores", "--part-rows", "7")
    output = read_output(tmp_path / "scores")
    assert [row["error"] for row in output] == [kind for _, kind in lines]
    assert all((row["relevance_score"] is None) == (row["error"] is not None) for row in output)
    assert all(row["message"] for row in output if row["error"])
    assert report["errors"] == Counter(kind for _, kind in lines if kind)


def test_a_row_with_a_list_of_documents_becomes_a_row_for_each(run: Run, client: LycheeClient, tmp_path: Path) -> None:
    documents = ["a small cat", {"text": "a dog"}, {"text": 3}, ""]
    source = write_jsonl(tmp_path / "lists.jsonl", [{"query": "a cat", "documents": documents}, {"query": "a"}])
    run(source, tmp_path / "scores")
    output = read_output(tmp_path / "scores")
    assert [(row["id"], row["index"], row["error"]) for row in output] == [
        ("lists.jsonl:0", 0, None),
        ("lists.jsonl:0", 1, None),
        ("lists.jsonl:0", 2, "bad_value"),
        ("lists.jsonl:0", 3, "no_document"),
        ("lists.jsonl:1", 0, "bad_value"),
    ]
    expected = {result.index: result.relevance_score for result in client.rerank("a cat", ["a small cat", "a dog"])}
    assert [row["relevance_score"] for row in output[:2]] == pytest.approx([expected[0], expected[1]], abs=1e-5)


def test_a_complete_output_is_left_alone_and_another_run_refused(run: Run, scored: Path, rows: Rows) -> None:
    source, output = scored / "pairs.jsonl", scored / "scores"
    before = {name: (output / name).stat().st_mtime_ns for name in os.listdir(output)}
    same = ("--keep-columns", "n")
    assert run(source, output, *same)["was_complete"]
    other = write_jsonl(scored / "other.jsonl", rows)
    for refused, reason in (
        (run_bulk(source, output, "localhost:1", *same, "--instruction", "Find cats"), "the instruction"),
        (run_bulk(source, output, "localhost:1"), "--keep-columns"),
        (run_bulk(other, output, "localhost:1", *same), "the input"),
    ):
        assert refused.returncode == 2
        assert f"a run in which {reason}" in refused.stderr
        assert "--overwrite" in refused.stderr
    assert {name: (output / name).stat().st_mtime_ns for name in os.listdir(output)} == before


def test_a_resumed_run_scores_what_is_missing_and_overwriting_all(
    run: Run, tmp_path: Path, rows: Rows, scores: list[float]
) -> None:
    source, output = write_jsonl(tmp_path / "pairs.jsonl", rows), tmp_path / "scores"
    run(source, output, "--part-rows", "64")
    (output / "_SUCCESS").unlink()
    (output / parts(output)[1]).unlink()
    kept = {name: (output / name).stat().st_mtime_ns for name in parts(output)}
    assert run(source, output)["resumed_rows"] == len(rows) - 64
    assert {name: (output / name).stat().st_mtime_ns for name in kept} == kept
    assert [row["relevance_score"] for row in read_output(output)] == pytest.approx(scores, abs=1e-5)
    assert run(source, output, "--overwrite", "--part-rows", "100")["resumed_rows"] == 0
    assert len(parts(output)) == 2


def test_a_file_larger_than_the_object_store_passes_through_it(run: Run, tmp_path: Path) -> None:
    photos = pa.array([os.urandom(2**20) for _ in range(120)], pa.binary())  # no images: they cost no time
    table = pa.table({"query": ["a cat"] * len(photos), "image": photos})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=4)
    assert (tmp_path / "a.parquet").stat().st_size > STORE_BYTES
    report = run(tmp_path / "a.parquet", tmp_path / "scores")
    assert report["errors"] == {"invalid_input": len(photos)}
    assert [row["id"] for row in read_output(tmp_path / "scores")] == [f"a.parquet:{number}" for number in range(120)]


def test_a_dataset_gets_columns_of_scores(
    address: str, server: TritonServer, rows: Rows, scores: list[float], tmp_path: Path
) -> None:
    source = write_jsonl(tmp_path / "pairs.jsonl", rows)
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM, address, str(source), server.grpc_url],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    found = sorted(json.loads(finished.stdout.splitlines()[-1]), key=lambda row: row["n"])
    assert [row["document"] for row in found] == [row["document"] for row in rows]
    assert [row["relevance_score"] for row in found] == pytest.approx(scores, abs=1e-5)


def test_the_pages_example_prints_what_the_page_shows(address: str, server: TritonServer, root: Path) -> None:
    page = (root / "docs/how-to/bulk.md").read_text(encoding="utf-8")
    ((code, shown),) = re.findall(r"```python\n([^`]*)```\n\n```\n([^`]*)```", page)
    code = f"import ray\nray.init(address={address!r}, log_to_driver=False)\n{code}"
    finished = subprocess.run(
        [sys.executable, "-c", code.replace("localhost:8001", server.grpc_url)],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    rows, expected = ([literal_eval(line) for line in text.splitlines()] for text in (finished.stdout, shown))
    assert [row["document"] for row in rows] == ["a kitten", "a rocket"]
    for row, one in zip(rows, expected, strict=True):
        assert row.keys() == one.keys()
        assert (row["query"], row["document"], row["decision"]) == (one["query"], one["document"], one["decision"])
        assert row["relevance_score"] == pytest.approx(one["relevance_score"], abs=2e-3)
