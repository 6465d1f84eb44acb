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
        ({"model": "mini def fp32"}, "2 models"),
        ({"instruction_sha256": "00"}, "'control' ran with 2 different policies or instructions"),
        ({"settings_sha256": "00"}, "'control' ran with 2 different policies or instructions"),
        ({"share": 0.1}, "planned share of 'control' was changed"),
    ],
)
def test_change_while_it_ran_is_noted(write: Write, changes: dict[str, Any], note: str) -> None:
    (found,) = read_users([write(record("a"), record("b", **changes))]).notes
    assert note in found


def test_variants_may_differ_in_their_instruction(write: Write) -> None:
    assert read_users([write(record("a"), record("t", variant="treatment", instruction_sha256="00"))]).notes == ()


def ranking(user: str, ranking_id: str, *indexes: int, **changes: Any) -> dict[str, Any]:
    """Return a decision as a gateway writes it."""
    return record(user, ranking_id=ranking_id, results=[{"index": index} for index in indexes], **changes)


def feedback(ranking_id: str, kind: str, value: float = 1.0, **fields: Any) -> dict[str, Any]:
    known = {"format_version": 1, "experiment": "shop", "record": "feedback"}
    return {**known, "ranking_id": ranking_id, "event": kind, "value": value, **fields}


def test_feedback_of_other_gateways_is_joined_with_its_ranking(write: Write, tmp_path: Path) -> None:
    write(
        feedback("r1", "click", index=7),  # before its ranking: the files of gateways are read in any order
        feedback("r1", "click", index=5),
        feedback("r1", "dwell", 12.5, index=5),
        feedback("r3", "conversion", worth=9.9),
        feedback("r4", "click", index=99),  # none of the results
        name="1.jsonl",
    )
    write(ranking("a", "r1", 5, 3, 7), ranking("a", "r2", 1, 2), name="2.jsonl")
    write(ranking("b", "r3", 4), ranking("b", "r4", 4), ranking("c", "r5", 1), name="3.jsonl")
    users = read_users([tmp_path])
    assert {metric: list(values) for metric, values in users.variants["control"].values.items()} == {
        "impressions": [6.0, 6.0, 3.0],
        "clicks": [2.0, 1.0, 0.0],
        "dwell_s": [12.5, 0.0, 0.0],
        "conversions": [0.0, 1.0, 0.0],
        "click_through": [0.5, 0.5, 0.0],
        "click_mrr": [0.5, 0.0, 0.0],
        "conversion_value": [0.0, 9.9, 0.0],
    }
    assert (users.damaged, users.notes) == ((), ())


def test_an_event_of_one_id_counts_once(write: Write, tmp_path: Path) -> None:
    write(ranking("a", "r1", 1), feedback("r1", "click", event_id="e"), name="1.jsonl")
    write(feedback("r1", "click", event_id="e"), feedback("r1", "click"), feedback("r1", "click"), name="2.jsonl")
    assert list(read_users([tmp_path]).variants["control"].values["clicks"]) == [3.0]


def test_a_ranking_that_is_in_two_files_counts_once(write: Write, tmp_path: Path) -> None:
    for name in ("1.jsonl", "copy.jsonl"):
        write(ranking("a", "r1", 1), name=name)
    assert list(read_users([tmp_path]).variants["control"].values["impressions"]) == [3.0]


def test_feedback_without_a_ranking_is_counted_in_a_note(write: Write) -> None:
    users = read_users([write(ranking("a", "r1", 1), feedback("r2", "click"), feedback("r2", "click"))])
    assert users.notes == ("2 events belong to rankings that are not in the files; is a gateway's file missing?",)
    assert list(users.variants["control"].values["clicks"]) == [0.0]


@pytest.mark.parametrize(
    "damaged",
    [
        feedback("", "click"),
        feedback("r1", "view"),
        feedback("r1", "dwell", -1),
        feedback("r1", "click", index=-1),
        feedback("r1", "conversion", worth="9"),
        {**ranking("a", "r2"), "results": None},
    ],
)
def test_damaged_feedback_is_skipped_and_named(write: Write, damaged: dict[str, Any]) -> None:
    users = read_users([write(ranking("a", "r1", 1), damaged)])
    assert len(users.damaged) == 1
    assert list(users.variants["control"].values["impressions"]) == [3.0]


def test_a_folder_without_records_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no valid line"):
        read_users([tmp_path])


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
