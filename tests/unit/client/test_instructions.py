"""Instruction templates: bundled, read, looked up, imported and written."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lychee_client import ConfigurationError
from lychee_client.instructions.templates import (
    LANGUAGES,
    MAX_FILE_SIZE_BYTES,
    MAX_TEXT_CHARACTERS,
    InstructionTemplate,
    all_instructions,
    bundled_instructions,
    dump_instructions,
    get_instruction,
    import_instructions,
    load_instructions,
    save_instructions,
    text_problem,
    user_instructions_path,
)

OWN = InstructionTemplate("legal-search", "For lawyers.", {"zh": "判断判决书是否涉及该法条"})


@pytest.fixture(autouse=True)
def own_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the user's own templates out of the tests; return where the tests' own ones go."""
    monkeypatch.delenv("LYCHEE_INSTRUCTIONS", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "lychee-rerank" / "instructions.json"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write one template, with keys replaced, to a file."""

    def write(name: str = "shop", **changes: Any) -> Path:
        entry = {"purpose": "A shop.", "texts": {"en": "Judge whether the document fits"}} | changes
        path = tmp_path / "shop.json"
        path.write_text(json.dumps({"format_version": 1, "templates": {name: entry}}), encoding="utf-8")
        return path

    return write


def test_bundled_templates_are_there_in_both_languages() -> None:
    templates = bundled_instructions()
    assert set(templates) == {
        "default",
        "search",
        "customer-service",
        "product-match",
        "recommendation",
        "duplicate-detection",
    }
    for template in templates.values():
        assert tuple(template.texts) == (() if template.name == "default" else LANGUAGES)


def test_instruction_is_looked_up_by_name_and_language() -> None:
    assert get_instruction("customer-service") == "Judge whether the document answers the question"
    assert get_instruction("customer-service", "zh") == "判断文档是否回答了问题"
    assert get_instruction("default", "zh") is None


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"'serach'; expected one of default, search"):
        get_instruction("serach")


def test_missing_language_lists_the_ones_there(own_path: Path) -> None:
    save_instructions([OWN], own_path)
    with pytest.raises(ConfigurationError, match=r"'legal-search' has no text in 'en'; it has zh"):
        get_instruction("legal-search")


def test_own_file_adds_and_overrides(own_path: Path) -> None:
    search = InstructionTemplate("search", "Mine.", {"en": "Judge whether the page is about the query"})
    save_instructions([search, OWN], own_path)
    assert get_instruction("search") == "Judge whether the page is about the query"
    assert get_instruction("legal-search", "zh") == OWN.texts["zh"]
    assert set(all_instructions()) == {*bundled_instructions(), "legal-search"}


def test_environment_names_another_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_path: Path) -> None:
    assert user_instructions_path() == own_path
    path = tmp_path / "模板.json"
    monkeypatch.setenv("LYCHEE_INSTRUCTIONS", str(path))
    with pytest.raises(ConfigurationError, match=r"LYCHEE_INSTRUCTIONS is .*模板\.json', which does not exist"):
        all_instructions()
    save_instructions([OWN], path)
    assert "legal-search" in all_instructions()
    assert not own_path.exists()


def test_templates_cannot_be_changed() -> None:
    template = bundled_instructions()["search"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        template.name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        template.texts["en"] = "other"  # type: ignore[index]
    with pytest.raises(TypeError):
        bundled_instructions()["search"] = OWN  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        (" \u3000 ", "is empty"),
        ("判" * (MAX_TEXT_CHARACTERS + 1), "has 1001 characters; expected at most 1000"),
        ("two\nlines", r"U\+000A at position 3"),
        ("tab\t", r"U\+0009"),
        ("zero\u200bwidth", r"U\+200B"),
        ("turned \u202e", r"U\+202E"),
        ("half \ud800", r"U\+D800"),
        ("a<|im_end|>b", r"'<\|im_end\|>'"),
        ("<|vision_start|>", "vision_start"),
        ("end</s>", "'</s>'"),
        ("<Query>: cat", "'<Query>'"),
        ("[INST] x [/INST]", r"'\[INST\]'"),
        ("<｜end▁of▁sentence｜>", "end"),
    ],
)
def test_text_that_breaks_a_prompt_has_a_problem(text: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"template 'shop': texts\.en .*{problem}"):
        InstructionTemplate("shop", "A shop.", {"en": text})


@pytest.mark.parametrize("text", ["判" * MAX_TEXT_CHARACTERS, "a < b | c > d", "Is it 👍🏽?", "[1] café <b>"])
def test_harmless_text_has_no_problem(text: str) -> None:
    assert text_problem(text) is None


@pytest.mark.parametrize("name", ["", "Shop", "1st", "a b", "a--b", "-a", "a_b", "商店", "a" * 65])
def test_bad_name_is_refused(write: Callable[..., Path], name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"shop\.json: the template name .* cannot be used"):
        load_instructions(write(name))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"txts": {}}, "has the unknown key 'txts'"),
        ({"purpose": ""}, "purpose is empty"),
        ({"purpose": 7}, "purpose is 7; expected a string"),
        ({"texts": {}}, "texts has 0 languages"),
        ({"texts": {"de": "Prüfe"}}, "texts has the key 'de'; expected en or zh"),
        ({"texts": {"en": None}}, "texts.en is None; expected a string"),
        ({"texts": {"en": "  "}}, "texts.en is empty"),
        ({"texts": "Judge"}, "texts is 'Judge'; expected an object"),
    ],
)
def test_bad_template_is_refused_with_file_name_and_key(
    write: Callable[..., Path], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_instructions(write(**changes))
    assert "shop.json: template 'shop'" in str(caught.value)
    assert message in str(caught.value)


def test_default_has_no_text_of_its_own(write: Callable[..., Path]) -> None:
    assert load_instructions(write("default", texts={}))["default"].text("zh") is None
    with pytest.raises(ConfigurationError, match="template 'default': texts has 1 languages"):
        load_instructions(write("default"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "expected an object"),
        (b'{"templates": {}}', "lacks the key 'format_version'"),
        (b'{"format_version": 2, "templates": {}}', "format_version is 2, this client reads 1"),
        (b'{"format_version": true, "templates": {}}', "format_version is True"),
        (b'{"format_version": 1, "templates": {}, "extra": 1}', "unknown key 'extra'"),
        (b'{"format_version": 1, "templates": []}', "templates is []; expected an object"),
        (b'{"format_version": 1, "templates": {"a": 1, "a": 2}}', "templates has the key 'a' more than once"),
        (
            b'{"format_version": 1, "templates": {"a": {"purpose": "x", "texts": {"en": "x", "en": "y"}}}}',
            "template 'a': texts has the key 'en' more than once",
        ),
        ("{}".encode("utf-16"), "is not UTF-8"),
        (b'{"a": "\xe9"}', "is not UTF-8: invalid continuation byte at byte 7"),
        (b" " * (MAX_FILE_SIZE_BYTES + 1), "is larger than the limit"),
    ],
)
def test_broken_file_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        load_instructions(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.json cannot be read: No such file"):
        load_instructions(tmp_path / "none.json")


def test_byte_order_mark_and_empty_templates_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "notepad.json"
    path.write_bytes(b'\xef\xbb\xbf{"format_version": 1, "templates": {}}')
    assert load_instructions(path) == {}


def test_dump_and_load_give_the_same_templates(tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    path.write_text(dump_instructions([*bundled_instructions().values(), OWN]), encoding="utf-8")
    assert "判决书" in path.read_text(encoding="utf-8")
    assert load_instructions(path) == {**bundled_instructions(), "legal-search": OWN}


def test_import_adds_what_is_new(own_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "all.json"
    save_instructions([*bundled_instructions().values(), OWN], file)
    assert import_instructions(file) == {"legal-search": OWN}
    assert load_instructions(own_path) == {"legal-search": OWN}
    before = own_path.stat()
    assert import_instructions(file) == {}
    assert own_path.stat() == before


def test_import_replaces_a_name_only_by_force(own_path: Path, write: Callable[..., Path]) -> None:
    save_instructions([OWN], own_path)
    import_instructions(write())
    before = own_path.read_bytes()
    changed = write(purpose="Another shop.")
    with pytest.raises(ConfigurationError, match=r"names are taken: shop; .*--force"):
        import_instructions(changed)
    with pytest.raises(ConfigurationError, match="names are taken: search"):
        import_instructions(write("search"))
    assert own_path.read_bytes() == before
    import_instructions(write(purpose="Another shop."), force=True)
    own = load_instructions(own_path)
    assert (own["shop"].purpose, own["legal-search"]) == ("Another shop.", OWN)


def test_failed_write_leaves_the_old_file(
    own_path: Path, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_instructions([OWN], own_path)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(ConfigurationError, match="No space left"):
        import_instructions(write())
    assert load_instructions(own_path) == {"legal-search": OWN}
    assert [path.name for path in own_path.parent.iterdir()] == ["instructions.json"]


def test_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"folder .*file.* cannot be made"):
        save_instructions([OWN], tmp_path / "file" / "own.json")


def test_save_keeps_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "dotfiles.json", tmp_path / "link.json"
    link.symlink_to(target)
    save_instructions([OWN], link)
    assert link.is_symlink()
    assert load_instructions(target) == {"legal-search": OWN}


def test_paths_may_be_strings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LYCHEE_INSTRUCTIONS", str(tmp_path / "own.json"))
    template = InstructionTemplate("mine", "for this test", {"en": "Judge whether it fits"})
    save_instructions([template], str(tmp_path / "mine.json"))
    assert load_instructions(str(tmp_path / "mine.json")) == {"mine": template}
    assert import_instructions(str(tmp_path / "mine.json")) == {"mine": template}
