"""Reading an experiment's logs: totals per user, damaged lines, doubtful experiments."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lychee_client import ConfigurationError, InvalidInputError
from lychee_evaluate.experiments.users import METRICS, read_users

Write = Callable[..., Path]


def record(user: str, **changes: Any) -> dict[str, Any]:
    """Return a decision as the log has it."""
    return {
        "format_version": 1,
        "experiment": "shop",
        "variant": "control",
        "share": 0.5,
        "user": user,
        "record": "decision",
        "impressions": 3,
        "policy": {"name": "balanced", "accept": 0.55, "review": 0.55},
        "model": "mini abc fp32",
        "instruction_sha256": None,
    } | changes


def event(user: str, kind: str, value: float, **changes: Any) -> dict[str, Any]:
    return record(user, record="event", event=kind, value=value, **changes)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write records, and lines as they are, to a log."""

    def write(*lines: dict[str, Any] | bytes, name: str = "log.jsonl") -> Path:
        path = tmp_path / name
        path.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines))
        return path

    return write


def test_records_are_added_up_per_user_over_all_files(write: Write) -> None:
    first = write(
        record("a"),
        record("b", impressions=0),
        event("a", "click", 2),
        event("a", "dwell", 1.5),
        record("t", variant="treatment", share=0.4),
    )
    second = write(
        event("a", "dwell", 3), record("a"), event("a", "conversion", 2), event("b", "conversion", 0), name="2.jsonl"
    )
    users = read_users([first, second])
    values = users.variants["control"].values
    assert {metric: list(values[metric]) for metric in METRICS} == {
        "impressions": [6, 0],
        "clicks": [2, 0],
        "dwell_s": [4.5, 0],
        "conversions": [1, 0],
    }
    assert (users.variants["control"].share, users.variants["treatment"].share) == (0.5, 0.4)
    assert (users.experiment, users.damaged, users.notes) == ("shop", (), ())


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{broken", "Expecting property name"),
        (b"\xff\xfe", "decode"),
        (b"[]", "expected a JSON object"),
        (b"[" * 100_000, "recursion"),
        (record("a", format_version=2), "format_version is 2, expected 1"),
        (record(""), "user is ''"),
        (record("a", experiment=None), "experiment is None"),
        (record("a", variant=["x"]), "variant is"),
        (record("a", share="half"), "share is 'half'"),
        (record("a", impressions=-1), "impressions is -1"),
        (record("a", impressions=True), "impressions is True"),
        (record("a", record="login"), "record is 'login'"),
        (event("a", "scroll", 1), "event 'scroll'"),
        (event("a", "click", float("nan")), "NaN is not a number"),
        (event("a", "click", 10**400), "value is 1000"),
        (b'{"format_version": 1, "value": ' + b"9" * 5_000 + b"}", "digits"),
        (json.dumps(event("a", "dwell", 1)).replace('"value": 1', '"value": 1e999').encode(), "value is inf"),
    ],
)
def test_damaged_line_is_skipped_and_named(write: Write, line: Any, reason: str) -> None:
    path = write(record("a"), b"", line, record("b"))
    users = read_users([path])
    assert users.variants["control"].count == 2
    (damaged,) = users.damaged
    assert damaged.startswith(f"{path}:3: ")
    assert reason in damaged


def test_user_with_both_variants_is_left_out_with_a_note(write: Write) -> None:
    users = read_users([write(record("a"), record("b"), record("a", variant="treatment"))])
    assert [users.variants[name].count for name in ("control", "treatment")] == [1, 0]
    assert "1 users got several variants" in users.notes[0]


def test_user_without_a_decision_is_left_out_with_a_note(write: Write) -> None:
    users = read_users([write(record("a"), event("b", "click", 1))])
    assert users.variants["control"].count == 1
    assert "1 users have events but no decision" in users.notes[0]


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"policy": {"name": "own", "accept": 0.6, "review": 0.6}}, "'control' ran with 2 different policies"),
        ({"model": "mini def fp32"}, "2 combinations of model and instruction"),
        ({"instruction_sha256": "00"}, "2 combinations of model and instruction"),
        ({"share": 0.1}, "planned share of 'control' was changed"),
    ],
)
def test_change_while_it_ran_is_noted(write: Write, changes: dict[str, Any], note: str) -> None:
    (found,) = read_users([write(record("a"), record("b", **changes))]).notes
    assert note in found


def test_one_of_several_experiments_is_chosen_by_name(write: Write) -> None:
    path = write(record("a"), record("b", experiment="other"), record("c", experiment="other"))
    assert read_users([path], "other").variants["control"].count == 2
    with pytest.raises(ConfigurationError, match="several experiments; choose one of other, shop"):
        read_users([path])
    with pytest.raises(ConfigurationError, match="no experiment is called 'new'"):
        read_users([path], "new")


def test_files_without_a_record_are_refused(write: Write) -> None:
    with pytest.raises(InvalidInputError, match="hold no valid line"):
        read_users([write()])
    with pytest.raises(InvalidInputError, match=r"first damaged line is .*log\.jsonl:1: "):
        read_users([write(b"GIF89a")])


def test_missing_or_repeated_file_is_refused(write: Write, tmp_path: Path) -> None:
    path = write(record("a"))
    (tmp_path / "link.jsonl").symlink_to(path)
    with pytest.raises(ConfigurationError, match="given twice"):
        read_users([path, tmp_path / "link.jsonl"])
    with pytest.raises(ConfigurationError, match=r"none\.jsonl cannot be read: No such file"):
        read_users([tmp_path / "none.jsonl"])
