"""The file of models: what each has of its own, what it takes from the gateway, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lychee_server.errors import SettingsError
from lychee_server.gateway.app import create_app
from lychee_server.gateway.models_file import PER_MODEL, read_models
from lychee_server.gateway.settings import GatewaySettings, variable_of

TWO = {"a": {"triton_url": "triton-a:8001"}, "b": {"triton_url": "triton-b:8001"}}

Write = Callable[[object], Path]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in GatewaySettings.model_fields:
        monkeypatch.delenv(variable_of(name), raising=False)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(content: object) -> Path:
        path = tmp_path / "models.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return write


def test_without_a_file_there_is_one_model_with_the_settings_themselves() -> None:
    settings = GatewaySettings()
    choice = read_models(settings)
    assert (dict(choice.settings), choice.is_several) == ({choice.default: settings}, False)


def test_a_model_has_its_own_and_for_the_rest_what_the_gateway_has(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {
        "triton_url": "triton-a:8001",
        "served_model_names": ["rerank-v3.5", "rerank 2"],
        "policy": "STRICT",
        "calibration": "a.json",
        "max_img_size": 256,
        "timeout_s": 1.5,
        "max_documents": 3,
        "max_concurrency": 2,
        "max_waiting": 0,
        "health_latency_ms": 700,
    }
    assert set(own) == set(PER_MODEL)
    monkeypatch.setenv(variable_of("triton_url"), "shared:8001")
    monkeypatch.setenv(variable_of("timeout_s"), "9")
    choice = read_models(GatewaySettings(models=write({"models": {"a": own, "b": {}}}), policy="exploratory", port=1))
    a, b = choice.settings["a"], choice.settings["b"]
    read = {name: getattr(a, name) for name in PER_MODEL}
    assert read == {
        **own,
        "policy": "strict",
        "served_model_names": ("rerank-v3.5", "rerank 2"),
        "calibration": tmp_path / "a.json",
    }
    assert (b.triton_url, b.timeout_s, b.policy, b.port, b.max_waiting) == ("shared:8001", 9, "exploratory", 1, 64)
    assert (choice.default, choice.is_several) == ("a", True)


def test_the_default_is_the_first_or_the_one_that_the_file_names(write: Write) -> None:
    assert read_models(GatewaySettings(models=write({"models": TWO}))).default == "a"
    assert read_models(GatewaySettings(models=write({"default": "b", "models": TWO}))).default == "b"


def test_toml_is_read_by_its_ending(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text('[models.z]\ntriton_url = "z:1"\n[models.a]\ntriton_url = "a:1"\n', encoding="utf-8")
    assert list(read_models(GatewaySettings(models=path)).settings) == ["z", "a"]


def test_one_model_in_a_file_is_one_model(write: Write) -> None:
    choice = read_models(GatewaySettings(models=write({"models": {"only": {}}})))
    assert (list(choice.settings), choice.is_several) == (["only"], False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON .*: .*; correct it there"),
        ('{"models": {"a": {}, "a": {}}}', "'a' stands there 2 times"),
        ([], 'expected "models", with an entry for each model'),
        ({"models": {}}, 'expected "models", with an entry for each model'),
        ({"models": TWO, "routes": {}}, "'routes' is not known; expected models and default"),
        ({"models": TWO, "default": "c"}, "default is 'c'; expected one of a, b"),
        ({"models": TWO, "default": 1}, "default is 1; expected one of a, b"),
        ({"models": {"a": 1}}, "models.a is no table"),
        ({"models": {"org/a": {}}}, "the name 'org/a' has other characters"),
        ({"models": {".a": {}}}, "the name '.a' has other characters"),
        ({"models": {"a": {"port": 1}}}, "models.a.port is a setting of the whole gateway; give it there, as --port"),
        ({"models": {"a": {"max_wating": 1}}}, "models.a.max_wating is not known; expected triton_url, "),
        ({"models": {"a": {"max_waiting": -1}}}, "models.a.max_waiting is -1; expected at least 0"),
        ({"models": {"a": {"policy": "lax"}}}, "models.a.policy is 'lax'; expected one of strict, "),
        ({"models": {"a": TWO["a"], "b": TWO["a"]}}, "a and b are both at triton-a:8001"),
        ({"models": {"a": {}, "b": TWO["b"], "c": {}}}, "a and c are both at localhost:8001"),
        ({"models": {**TWO, "c": {"served_model_names": ["b"]}}}, "the name 'b' is one of b and of c"),
        (
            {"models": {n: {**own, "served_model_names": ["x"]} for n, own in TWO.items()}},
            "the name 'x' is one of a and of b",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_place(write: Write, content: object, message: str) -> None:
    path = write(content)
    with pytest.raises(SettingsError, match=message) as caught:
        read_models(GatewaySettings(models=path))
    assert str(path) in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"the file of models .*nowhere\.json cannot be read: No such file"):
        read_models(GatewaySettings(models=tmp_path / "nowhere.json"))


@pytest.mark.parametrize(
    ("setting", "option"),
    [({"calibration": Path("c.json")}, "--calibration"), ({"served_model_names": ("x",)}, "--served-model-name")],
)
def test_what_is_one_models_is_not_said_for_all(write: Write, setting: dict[str, Any], option: str) -> None:
    with pytest.raises(SettingsError, match=f"{option} is about one model, and .* names several; give it to one"):
        read_models(GatewaySettings(models=write({"models": TWO}), **setting))


def test_a_calibration_that_cannot_be_read_names_its_model_before_anything_starts(write: Write) -> None:
    path = write({"models": {**TWO, "b": {**TWO["b"], "calibration": "gone.json"}}})
    with pytest.raises(SettingsError, match=rf"the model b of {path}: the gateway cannot be set up: .*gone\.json"):
        create_app(GatewaySettings(models=path, web=False))
