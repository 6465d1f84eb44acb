"""What the lint says about a repository that Triton refuses without a reason, or serves worse without a word."""

from __future__ import annotations

from pathlib import Path

import pytest
from lychee_server.doctor.config_lint import Problem, lint_repository

ENCODER = """name: "encoder"
backend: "onnxruntime"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: 4 }
output { name: "y" data_type: TYPE_FP32 dims: 2 }
instance_group { count: 1 kind: KIND_CPU }
dynamic_batching { }
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
parameters { key: "maximum.x" value { string_value: "9" } }
default_model_filename: "model.onnx"
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a sound repository: a model with a variant."""
    folder = tmp_path / "encoder"
    for name in ("1", "configs"):
        (folder / name).mkdir(parents=True)
    (folder / "1" / "model.onnx").touch()
    for path in (folder / "config.pbtxt", folder / "configs" / "cpu.pbtxt"):
        path.write_text(ENCODER, encoding="utf-8")
    return tmp_path


def rewrite(repository: Path, line: int, text: str, file: str = "config.pbtxt") -> Path:
    """Replace one line, counted from 1."""
    path = repository / "encoder" / file
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[line - 1] = text
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def lint(repository: Path) -> list[Problem]:
    return lint_repository(repository)[1]


def test_a_sound_repository_has_no_problems(repository: Path) -> None:
    assert lint_repository(repository) == (2, [])


def test_the_committed_configurations_have_no_problems(root: Path) -> None:
    count, problems = lint_repository(root / "model_repository")
    assert count >= 9
    not_committed = "The model repository is incomplete"  # version folders and model files
    assert [problem for problem in problems if not problem.seen.startswith(not_committed)] == []


def test_a_folder_without_models_is_an_error(tmp_path: Path) -> None:
    count, (problem,) = lint_repository(tmp_path)
    assert (count, problem.severity, "holds no model" in problem.seen) == (0, "error", True)


@pytest.mark.parametrize("file", ["config.pbtxt", "configs/cpu.pbtxt"])
@pytest.mark.parametrize(
    ("line", "text", "seen"),
    [
        (3, "max_batchsize: 8", '3:1 : Message type "inference.ModelConfig" has no field named "max_batchsize"'),
        (4, "input { data_type: TYPE_FLOAT32 }", 'Enum type "inference.DataType" has no value named TYPE_FLOAT32'),
        (7, "dynamic_batching { } ensemble_scheduling { }", '7:22 : Field "ensemble_scheduling" is specified along'),
        (10, "response_cache {", "Expected"),
    ],
)
def test_a_file_against_the_schema_is_named_with_line_and_field(
    repository: Path, file: str, line: int, text: str, seen: str
) -> None:
    path = rewrite(repository, line, text, file)
    (problem,) = lint(repository)
    assert (problem.severity, problem.seen.startswith(f"{path} is not"), seen in problem.seen) == ("error", True, True)
    assert "lychee export" in problem.advice


def test_every_broken_file_is_reported(repository: Path) -> None:
    paths = [rewrite(repository, 1, "nam: 1"), rewrite(repository, 1, "nam: 1", "configs/cpu.pbtxt")]
    assert [problem.seen.split()[0] for problem in lint(repository)] == list(map(str, paths))


def test_a_file_that_is_no_text_is_an_error(repository: Path) -> None:
    (repository / "encoder" / "config.pbtxt").write_bytes(b"\xff\xfe")
    assert [problem.severity for problem in lint(repository)] == ["error"]


def test_a_missing_model_file_is_an_error(repository: Path) -> None:
    path = repository / "encoder" / "1" / "model.onnx"
    path.unlink()
    (problem,) = lint(repository)
    assert (problem.severity, str(path) in problem.seen) == ("error", True)


@pytest.mark.parametrize(
    ("line", "text", "key", "advice"),
    [
        (7, "dynamic_batching { priority_levels: 2 default_priority_level: 2 }", "priority_levels: with it", "remove"),
        (7, "dynamic_batching { default_queue_policy { } }", "dynamic_batching.default_queue_policy: ", "remove"),
        (7, "dynamic_batching { priority_queue_policy { key: 1 } }", "priority_queue_policy: ", "remove"),
        (8, 'parameters { key: "intra_op_threads" }', "parameters[intra_op_threads]: ", "mean intra_op_thread_count?"),
        (8, 'parameters { key: "x" }', "parameters[x]: ", "expected one of arena_extend_strategy, "),
        (10, "response_cache { enable: true }", "response_cache: ", "have a cache of their own"),
    ],
)
def test_what_triton_takes_in_silence_is_a_warning(
    repository: Path, line: int, text: str, key: str, advice: str
) -> None:
    path = rewrite(repository, line, text)
    (problem,) = lint(repository)
    assert (problem.severity, problem.seen.startswith(f"{path}: "), key in problem.seen) == ("warning", True, True)
    assert advice in problem.advice


def test_a_python_model_may_have_any_parameter(repository: Path) -> None:
    rewrite(repository, 2, 'backend: "python"')
    rewrite(repository, 8, 'parameters { key: "anything" }')
    assert lint(repository) == []


def test_a_variant_may_be_for_other_hardware(repository: Path) -> None:
    rewrite(repository, 2, 'backend: "tensorrt"', "configs/cpu.pbtxt")
    rewrite(repository, 6, "instance_group { kind: KIND_GPU }", "configs/cpu.pbtxt")
    assert lint(repository) == []
