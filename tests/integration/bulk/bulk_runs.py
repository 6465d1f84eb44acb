"""Inputs of `lychee bulk`, runs of it, and what has to be in their outputs."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lychee_client import LycheeClient

LYCHEE = Path(sys.executable).parent / "lychee"
WORDS = ("red", "blue", "cat", "dog", "chair", "table", "lamp", "wood", "small", "large", "garden", "shoe", "bag")
WAIT_S = 180.0
Rows = list[dict[str, Any]]


def make_rows(count: int, seed: int = 0) -> Rows:
    """Make pairs with a number; a query comes with twenty documents."""
    rng = random.Random(seed)
    queries = [" ".join(rng.choices(WORDS, k=2)) for _ in range(-(-count // 20))]
    return [
        {"query": queries[n // 20], "document": " ".join([*rng.choices(WORDS, k=5), f"{seed} {n}"]), "n": n}
        for n in range(count)
    ]


def write_jsonl(path: Path, rows: Rows) -> Path:
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
    return path


def environment() -> dict[str, str]:
    """Return the variables without those of Ray."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}


def command(source: Path, output: Path, url: str, *options: str) -> list[str]:
    return [str(LYCHEE), "bulk", str(source), str(output), "--url", url, "--progress", "0", *options]


def run_bulk(source: Path, output: Path, url: str, *options: str) -> subprocess.CompletedProcess[str]:
    words = [*command(source, output, url, *options), "--json"]
    return subprocess.run(words, capture_output=True, text=True, timeout=2 * WAIT_S, check=False, env=environment())


def bulk(source: Path, output: Path, url: str, *options: str) -> dict[str, Any]:
    """Run the command to its good end, and return what it says."""
    finished = run_bulk(source, output, url, *options)
    assert finished.returncode == 0, finished.stderr
    assert "Traceback" not in finished.stderr
    report: dict[str, Any] = json.loads(finished.stdout)
    return report


def read_output(folder: Path) -> Rows:
    """Return the whole output in the order of the input."""
    assert (folder / "_SUCCESS").exists()
    rows: Rows = pa.concat_tables([pq.read_table(path) for path in sorted(folder.glob("*.parquet"))]).to_pylist()
    return rows


def score_one_by_one(client: LycheeClient, rows: Rows) -> list[float]:
    """Return the scores that the SDK gives, query by query."""
    scores: list[float] = []
    for query, group in itertools.groupby(rows, key=lambda row: row["query"]):
        documents = [row["document"] for row in group]
        found = {result.index: result for result in client.rerank(query, documents, timeout_s=WAIT_S)}
        scores += [found[index].relevance_score for index in range(len(documents))]
    return scores


def check_exactly_once(output: Rows, rows: Rows, scores: list[float]) -> None:
    """Make sure that every row is there once, with its score."""
    assert [row["n"] for row in output] == [str(row["n"]) for row in rows]
    assert [row["relevance_score"] for row in output] == pytest.approx(scores, abs=1e-5)


def parts(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("part-*.parquet"))


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
