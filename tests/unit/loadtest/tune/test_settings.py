"""Which keys of a configuration tuning changes, and which it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lychee_loadtest.tune.settings import Settings, current_settings, with_settings, without_batching

TUNED = Settings(batches=(4, 8), max_run_elements=512, instances=2, threads=1, delay_us=2000)


@pytest.fixture
def config(parse: Callable[[str], Any], dual_repository: Path) -> Any:
    return parse((dual_repository / "text_encoder" / "config.pbtxt").read_text(encoding="utf-8"))


def test_settings_come_back_from_the_configuration_that_they_were_written_to(config: Any) -> None:
    assert current_settings(with_settings(config, TUNED)) == TUNED


def test_the_current_settings_change_nothing(config: Any) -> None:
    assert with_settings(config, current_settings(config)) == config


def test_all_other_keys_stay(config: Any) -> None:
    changed = with_settings(with_settings(config, TUNED), current_settings(config))
    assert changed == config
    assert with_settings(config, TUNED).max_batch_size == 32


def test_a_smaller_choice_removes_keys_that_no_longer_apply(config: Any) -> None:
    plain = with_settings(with_settings(config, TUNED), Settings())
    assert "max_run_elements" not in plain.parameters
    assert "intra_op_thread_count" not in plain.parameters
    assert not plain.dynamic_batching.preferred_batch_size


def test_the_configuration_that_was_read_is_not_changed(config: Any) -> None:
    before = type(config)()
    before.CopyFrom(config)
    with_settings(config, TUNED)
    without_batching(config)
    assert config == before


def test_batches_are_measured_without_batching_and_bound(config: Any) -> None:
    bare = without_batching(config)
    assert not bare.HasField("dynamic_batching")
    assert "max_run_elements" not in bare.parameters


def test_settings_describe_themselves() -> None:
    assert TUNED.describe() == (
        "batches of 4 and 8, at most 512 elements at once, 2 instances with 1 thread, queue delay 2 ms"
    )
    assert replace(TUNED, batches=(), max_run_elements=0, instances=1, threads=0, delay_us=0).describe() == (
        "any batch, 1 instance with all cores, queue delay 0 ms"
    )
