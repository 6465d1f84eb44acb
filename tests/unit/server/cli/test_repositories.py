"""Which models `lychee load` serves, and under which names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.dual_encoder import manifest_json
from lychee_client.repository import ASSETS_MODEL, MANIFEST_FILENAME
from lychee_server.cli.repositories import Chosen, choose
from lychee_server.defaults import state_dir
from lychee_server.errors import RepositoryError, SettingsError
from lychee_server.gateway.settings import GatewaySettings


@pytest.fixture
def add(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that makes a folder with an export."""

    def add(name: str) -> Path:
        folder = tmp_path / name / ASSETS_MODEL / "1"
        folder.mkdir(parents=True)
        (folder / MANIFEST_FILENAME).write_text(manifest_json(), encoding="utf-8")
        return tmp_path / name

    return add


def write(path: Path, default: str | None = None, **models: dict[str, Any]) -> Path:
    content = {"models": models} | ({} if default is None else {"default": default})
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_one_folder_has_no_name_and_need_not_be_an_export(tmp_path: Path) -> None:
    choice = choose([tmp_path], None, ["rerank-v3.5"], "cpu")
    assert choice.models == choice.here == (Chosen("", tmp_path, "cpu"),)
    assert (choice.is_named, choice.served_names, choice.here[0].log_name) == (False, ("rerank-v3.5",), "triton.log")
    choice.check(GatewaySettings())


def test_several_are_called_as_their_folders_or_as_is_said(add: Callable[[str], Path]) -> None:
    small, large = add("small"), add("deep/large")
    choice = choose([small, Path(f"big={large}")], None, ["big=rerank-v3.5", "big=other"])
    assert [(model.name, model.repository, model.log_name) for model in choice.here] == [
        ("small", small, "triton.small.log"),
        ("big", large, "triton.big.log"),
    ]
    choice.check(GatewaySettings())
    state_dir().mkdir(parents=True, exist_ok=True)
    written = json.loads(choice.write({"small": "127.0.0.1:1", "big": "127.0.0.1:2"}).read_text(encoding="utf-8"))
    assert written == {
        "models": {
            "small": {"triton_url": "127.0.0.1:1"},
            "big": {"served_model_names": ["rerank-v3.5", "other"], "triton_url": "127.0.0.1:2"},
        },
        "default": "small",
    }


def test_a_folder_with_an_equals_sign_is_a_folder(
    tmp_path: Path, add: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    add("a=b")
    assert choose([Path("a=b")], None, ()).here[0] == Chosen("", Path("a=b"), None)


def test_one_with_a_name_has_it(add: Callable[[str], Path]) -> None:
    folder = add("x")
    choice = choose([Path(f"mini={folder}")], None, ())
    assert (choice.is_named, choice.default, choice.here) == (True, "mini", (Chosen("mini", folder, None),))


@pytest.mark.parametrize(
    ("folders", "served", "reason"),
    [
        (("a", "b/a"), (), r"two models are called 'a'; give one another name with --repository NAME=.*b/a"),
        (("a", "x=a"), (), "a and x are both .*/a; expected a folder for each"),
        (("a", "b c"), (), r"the folder .*/b c gives no name for its model .* say --repository NAME="),
        (("a", "b"), ("rerank-v3.5",), "--served-model-name is 'rerank-v3.5'; expected MODEL=NAME.*one of a, b"),
        (("a", "b"), ("c=rerank-v3.5",), "expected MODEL=NAME"),
        (("a", "b"), ("a=",), "expected MODEL=NAME"),
    ],
)
def test_what_collides_is_refused(
    tmp_path: Path, add: Callable[[str], Path], folders: tuple[str, ...], served: tuple[str, ...], reason: str
) -> None:
    for folder in {folder.rpartition("=")[2] for folder in folders}:
        add(folder)
    parts = [folder.rpartition("=") for folder in folders]
    given = [Path(f"{name}{sign}{tmp_path / folder}") for name, sign, folder in parts]
    with pytest.raises(SettingsError, match=reason):
        choose(given, None, served)


def test_one_of_several_without_an_export_is_refused(tmp_path: Path, add: Callable[[str], Path]) -> None:
    with pytest.raises(RepositoryError, match=r"empty holds no export for the model empty; run `lychee export"):
        choose([add("a"), tmp_path / "empty"], None, ())


def test_a_name_that_two_models_have_is_refused_before_anything_starts(add: Callable[[str], Path]) -> None:
    choice = choose([add("a"), add("b")], None, ["a=x", "b=x"])
    with pytest.raises(SettingsError, match="the name 'x' is one of a and of b"):
        choice.check(GatewaySettings())
    with pytest.raises(SettingsError, match="--calibration is about one model, and --repository names several"):
        choose([add("c"), add("d")], None, ()).check(GatewaySettings(calibration=Path("x.json")))


def test_a_file_says_what_each_model_has_of_its_own(tmp_path: Path, add: Callable[[str], Path]) -> None:
    own, given = add("own"), add("given")
    file = write(
        tmp_path / "models.json",
        "given",
        elsewhere={"triton_url": "triton:8001"},
        own={"repository": "own", "config_name": "gpu", "policy": "strict", "calibration": "mine.json"},
        given={"max_concurrency": 2},
    )
    choice = choose([given], file, ["own=alias"], "cpu")
    calibration = str(tmp_path / "mine.json")
    assert choice.here == (
        Chosen("given", given, "cpu", {"max_concurrency": 2}),
        Chosen("own", own, "gpu", {"policy": "strict", "calibration": calibration, "served_model_names": ["alias"]}),
    )
    assert choice.models[0] == Chosen("elsewhere", None, "cpu", {"triton_url": "triton:8001"})
    choice.check(GatewaySettings())


@pytest.mark.parametrize(
    ("models", "reason"),
    [
        ({"a": {"triton_url": "b:1"}}, "none is left to be served here; start the gateway alone with `lychee gateway"),
        ({"a": {"triton_url": "b:1", "repository": "b"}}, "models.a has repository, .* and triton_url"),
        ({"a": {"repository": 5}}, "models.a.repository is 5; expected a text"),
        ({"a": {"repository": "own", "polcy": "x"}}, "models.a.polcy is not known; expected"),
        (
            {"a": {"repository": "own"}, "b": {"repository": "own"}},
            "a and b are both .*own; expected a folder for each",
        ),
        ({"a": {}, "b": {}}, "a and b are both .*own; expected a folder"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(
    tmp_path: Path, add: Callable[[str], Path], models: dict[str, dict[str, Any]], reason: str
) -> None:
    with pytest.raises(SettingsError, match=reason):
        choose([add("own")], write(tmp_path / "models.json", **models), ())


def test_folders_stand_in_one_place(tmp_path: Path, add: Callable[[str], Path]) -> None:
    with pytest.raises(SettingsError, match="name the folders in one of the two"):
        choose([add("a"), add("b")], write(tmp_path / "models.json", a={}), ())
