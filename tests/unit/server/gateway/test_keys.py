"""API keys: where they come from, when they change, and that no message shows one."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from lychee_server.errors import SettingsError
from lychee_server.gateway import keys
from lychee_server.gateway.keys import ApiKeys
from lychee_server.gateway.settings import GatewaySettings

CANARY = "canary-key-0123456789"


class Clock:
    """Goes on when it is told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_without_keys_none_is_required() -> None:
    assert not ApiKeys.load(GatewaySettings()).required


def test_keys_come_from_settings_and_file(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# of the shop\nfrom-file\n\n  second-of-file  \r\n#disabled\n", encoding="utf-8")
    api_keys = ApiKeys.load(GatewaySettings(api_keys=("from-settings",), api_keys_file=path))
    assert api_keys.required
    assert all(api_keys.accepts(key) for key in ("from-settings", "from-file", "second-of-file"))
    for wrong in (
        "",
        "#disabled",
        "disabled",
        "# of the shop",
        "from-fil",
        "from-filee",
        "FROM-FILE",
        "ключ",
        "\udcff",
    ):
        assert not api_keys.accepts(wrong)


def test_every_key_is_compared_whichever_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr(keys.hmac, "compare_digest", lambda a, b: compared.append(len(b)) or a == b)
    api_keys = ApiKeys(["a" * 5, "b" * 10, "c" * 15])
    for key in ("a" * 5, "c" * 15, "unknown"):
        compared.clear()
        api_keys.accepts(key)
        assert compared == [32, 32, 32]  # digests: the length of a key does not show either


def test_keys_are_held_as_digests_only() -> None:
    api_keys = ApiKeys([CANARY])
    assert CANARY not in repr(vars(api_keys))


@pytest.mark.parametrize("content", ["", "# none\n\n"])
def test_a_file_without_keys_does_not_open_the_gateway(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(SettingsError, match=r"keys, holds no key; expected one per line"):
        ApiKeys([], path)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent, cannot be read \(No such file"):
        ApiKeys([], tmp_path / "absent")


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_bytes(b"caf\xe9-key")
    with pytest.raises(SettingsError, match="it is not UTF-8"):
        ApiKeys([], path)


@pytest.mark.parametrize("bad", [f"{CANARY} {CANARY}", f"{CANARY}ü", f"{CANARY}\x7f"])
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "keys"
    path.write_text(f"good\n{bad}\n", encoding="utf-8")
    for arguments in (([bad], None), ([], path)):
        with pytest.raises(SettingsError, match="cannot be sent in a header") as caught:
            ApiKeys(*arguments)
        assert CANARY not in str(caught.value)


def test_a_changed_file_counts_after_a_second(tmp_path: Path) -> None:
    path, clock = tmp_path / "keys", Clock()
    path.write_text("old\n", encoding="utf-8")
    api_keys = ApiKeys([], path, clock=clock)
    path.write_text("newer\n", encoding="utf-8")
    clock.now_s += 0.9
    assert api_keys.accepts("old")
    assert not api_keys.accepts("newer")
    clock.now_s += 0.2
    assert not api_keys.accepts("old")
    assert api_keys.accepts("newer")


def test_a_file_replaced_by_one_of_the_same_size_and_time_counts(tmp_path: Path) -> None:
    path, clock = tmp_path / "keys", Clock()
    path.write_text("key-1\n", encoding="utf-8")
    status = path.stat()
    api_keys = ApiKeys([], path, clock=clock)
    other = tmp_path / "other"
    other.write_text("key-2\n", encoding="utf-8")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)
    clock.now_s += 1.1
    assert api_keys.accepts("key-2")
    assert not api_keys.accepts("key-1")


def test_a_file_that_becomes_unreadable_leaves_the_keys_and_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, clock = tmp_path / "keys", Clock()
    path.write_text(f"{CANARY}\n", encoding="utf-8")
    api_keys = ApiKeys([], path, clock=clock)
    path.unlink()
    for _ in range(3):
        clock.now_s += 1.1
        assert api_keys.accepts(CANARY)
    path.write_text(f"{CANARY} with spaces\n", encoding="utf-8")
    clock.now_s += 1.1
    assert api_keys.accepts(CANARY)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "No such file" in caplog.text
    assert CANARY not in caplog.text
    path.write_text("next\n", encoding="utf-8")
    clock.now_s += 1.1
    assert api_keys.accepts("next")
    assert not api_keys.accepts(CANARY)


def test_an_emptied_file_revokes_its_keys_and_keeps_the_gateway_closed(tmp_path: Path) -> None:
    path, clock = tmp_path / "keys", Clock()
    path.write_text("leaked\n", encoding="utf-8")
    api_keys = ApiKeys(["fixed"], path, clock=clock)
    path.write_text("", encoding="utf-8")
    clock.now_s += 1.1
    assert not api_keys.accepts("leaked")
    assert api_keys.accepts("fixed")
    assert api_keys.required
