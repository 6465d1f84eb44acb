"""A repository that holds another model."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.dual_encoder import manifest_json
from lychee_client.manifest import parse_manifest
from lychee_client.repository import ASSETS_MODEL, MANIFEST_FILENAME
from lychee_export.errors import OtherModelError
from lychee_export.replacement import check_replacement


def write_manifest(repository: Path, **changes: object) -> None:
    folder = repository / ASSETS_MODEL / "1"
    folder.mkdir(parents=True)
    (folder / MANIFEST_FILENAME).write_text(manifest_json(**changes), encoding="utf-8")


@pytest.mark.parametrize("changes", [{"model_id": "owner/other"}, {"family": "clip"}])
def test_another_model_is_replaced_on_demand_alone(tmp_path: Path, changes: dict[str, str]) -> None:
    write_manifest(tmp_path, **changes)
    spec, asked = parse_manifest(manifest_json()), []

    def refuse(problem: str) -> bool:
        asked.append(problem)
        return False

    with pytest.raises(OtherModelError, match="or say --replace"):
        check_replacement(tmp_path, spec, refuse)
    (problem,) = asked
    assert spec.model_id in problem
    assert next(iter(changes.values())) in problem
    check_replacement(tmp_path, spec, lambda problem: True)


def test_the_same_model_of_another_revision_needs_nothing_and_neither_does_an_empty_folder(tmp_path: Path) -> None:
    write_manifest(tmp_path, revision="another", precision="w8")

    def refuse(problem: str) -> bool:
        raise AssertionError(problem)

    check_replacement(tmp_path, parse_manifest(manifest_json()), refuse)
    check_replacement(tmp_path / "absent", parse_manifest(manifest_json()), refuse)
