"""Tables and files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lychee_loadtest.memory.layers import SizeRun
from lychee_loadtest.memory.plan import plan_memory
from lychee_loadtest.memory.report import needs_json, read_expected, reserved_warnings
from lychee_server.errors import SettingsError

MB = 1_000_000


def test_a_written_plan_says_what_one_process_may_hold(
    measure: Any, size_run: Callable[..., SizeRun], tmp_path: Path
) -> None:
    model = measure(size_run(None, 10 * MB), instances=3)
    needs = [plan_memory([model], batch, images=False) for batch in (1, 8)]
    path = tmp_path / "plan.json"
    data = needs_json(needs, [model], tmp_path, {"verdict": None})
    path.write_text(json.dumps(data), encoding="utf-8")
    expected = read_expected(path)
    assert expected.by_model == {"text_encoder": pytest.approx(1.02 * 400 * MB)}
    assert not expected.on_gpu
    assert data["format"] == 1
    assert "cpu" in data["machine"]
    assert data["deployment"][1]["models"][0]["temporary_bytes"] == 3 * 80 * MB


@pytest.mark.parametrize("text", ["", "{}", '{"format": 2, "deployment": []}', "[]"])
def test_another_file_is_refused_with_the_command_that_writes_one(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=r"is no prediction .*lychee memory --repository DIR --json"):
        read_expected(path)


def test_a_heap_and_an_arena_far_above_what_is_used_are_warned_about(
    measure: Any, size_run: Callable[..., SizeRun]
) -> None:
    size = size_run(None, 10 * MB)
    model = measure(size, heap_used_bytes=200 * MB, heap_resident_bytes=290 * MB)
    assert list(reserved_warnings([model])) == []
    (heap,) = reserved_warnings([replace(model, heap_resident_bytes=310 * MB)])
    assert "keeps 310 MB and malloc handed out 200 MB" in heap
    (arena,) = reserved_warnings([replace(model, sizes=(replace(size, arena_bytes=160 * MB),))])
    assert "arena has reserved 160 MB for tensors and 100 MB are used" in arena
