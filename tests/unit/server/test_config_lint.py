"""What the lint says about a broken `config.pbtxt`: file, line, key, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from lychee_server.config_lint import lint_repository
from lychee_server.config_text import Problem, parse_fields, read_config

ENCODER = """name: "encoder"
backend: "onnxruntime"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: 4 }
output { name: "y" data_type: TYPE_FP32 dims: 2 }
instance_group { count: 1 kind: KIND_CPU }
dynamic_batching { }
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
optimization { execution_accelerators { cpu_execution_accelerator {
  name: "openvino"
  parameters { key: "precision" value: "bf16" } } } }
response_cache { enable: true }
"""
HEAD = """name: "head"
backend: "onnxruntime"
max_batch_size: 8
input { name: "y" data_type: TYPE_FP32 dims: 2 }
output { name: "z" data_type: TYPE_FP32 dims: 1 }
instance_group { count: 1 kind: KIND_CPU }
"""
RANKER = """name: "ranker"
platform: "ensemble"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: 4 }
output { name: "z" data_type: TYPE_FP32 dims: 1 }
ensemble_scheduling {
  step {
    model_name: "encoder"
    model_version: -1
    input_map { key: "x" value: "x" }
    output_map { key: "y" value: "embedding" }
  }
  step {
    model_name: "head"
    model_version: -1
    input_map { key: "y" value: "embedding" }
    output_map { key: "z" value: "z" }
  }
}
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a sound repository: an ensemble of two models, one of them with a variant."""
    for name, config in (("encoder", ENCODER), ("head", HEAD), ("ranker", RANKER)):
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "config.pbtxt").write_text(config, encoding="utf-8")
        if name != "ranker":
            (tmp_path / name / "1" / "model.onnx").touch()
    (tmp_path / "encoder" / "configs").mkdir()
    (tmp_path / "encoder" / "configs" / "cpu.pbtxt").write_text(ENCODER, encoding="utf-8")
    return tmp_path


def break_line(repository: Path, model: str, line: int, text: str) -> Path:
    """Replace one line, counted from 1; one after the last appends."""
    path = repository / model / "config.pbtxt"
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[line - 1 : line] = [text]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def lint(repository: Path, gpu_count: int = 0) -> list[Problem]:
    return lint_repository(repository, gpu_count=gpu_count)[1]


def test_a_sound_repository_has_no_problems(repository: Path) -> None:
    assert lint_repository(repository, gpu_count=0) == (4, [])


def test_the_committed_repository_has_no_problems(root: Path) -> None:
    count, problems = lint_repository(root / "model_repository", gpu_count=0)
    assert count >= 9
    not_committed = {"version_policy", "default_model_filename"}  # version folders and model files
    assert [problem for problem in problems if problem.key not in not_committed] == []


def test_an_empty_repository_has_no_files(tmp_path: Path) -> None:
    assert lint_repository(tmp_path, gpu_count=0) == (0, [])


@pytest.mark.parametrize(
    ("model", "line", "text", "at", "key", "seen", "advice"),
    [
        ("head", 3, "max_batchsize: 8", 3, "max_batchsize", "knows no max_batchsize", "did you mean max_batch_size?"),
        (
            "head",
            4,
            "input { name: 'y'\n type: TYPE_FP32 }",
            5,
            "input.type",
            "knows no type",
            "did you mean data_type?",
        ),
        (
            "head",
            5,
            "output { data_type: TYPE_FLOAT32 }",
            5,
            "output.data_type",
            "TYPE_FLOAT32, which is",
            "TYPE_FP32?",
        ),
        ("head", 6, "instance_group { kind: KIND_TPU }", 6, "instance_group.kind", "KIND_TPU", "did you mean KIND_"),
        ("head", 3, 'max_batch_size: "eight"', 3, "max_batch_size", "Couldn't parse integer", "correct it"),
        ("head", 3, "max_batch_size: 8 max_batch_size: 9", 3, "max_batch_size[1]", "multiple", "correct it"),
        ("head", 3, "max_batch_size 8", 3, "max_batch_size", "Expected", "correct it"),
        ("head", 6, "instance_group {", 6, "", "before the end of the file", "correct it"),
        ("head", 6, "dims:", 6, "", "Expected a value of dims", "correct it"),
        ("head", 6, "}", 6, "", "Expected identifier", "correct it"),
        ("head", 1, 'name: "haed"', 1, "name", "is haed, but the model's folder is head", 'write name: "head"'),
        ("head", 2, 'backend: "onxruntime"', 2, "backend", "is onxruntime", "did you mean onnxruntime?"),
        (
            "head",
            6,
            'default_model_filename: "head.onnx"',
            6,
            "default_model_filename",
            "head.onnx is missing",
            "export",
        ),
        (
            "head",
            6,
            "version_policy { specific {\n versions: [1,\n 3] } }",
            8,
            "version_policy.specific.versions[1]",
            "is 3, but",
            "name a version",
        ),
        (
            "head",
            6,
            "dynamic_batching { preferred_batch_size: [4, 16] }",
            6,
            "dynamic_batching.preferred_batch_size[1]",
            "is 16, above max_batch_size 8",
            "at most 8",
        ),
        ("head", 6, "instance_group { kind: KIND_GPU }", 6, "instance_group.kind", "no NVIDIA GPU", "KIND_CPU"),
        (
            "head",
            6,
            "instance_group { kind: KIND_CPU gpus: 0 }",
            6,
            "instance_group.gpus",
            "KIND_CPU",
            "one of the two",
        ),
        (
            "encoder",
            10,
            'name: "opnvino"',
            10,
            "optimization.execution_accelerators.cpu_execution_accelerator.name",
            "'opnvino'",
            "did you mean openvino?",
        ),
        (
            "encoder",
            11,
            'parameters { key: "precision" value: "fp16" } } } }',
            11,
            "optimization.execution_accelerators.cpu_execution_accelerator.parameters[precision].value",
            "'fp16'",
            "bf16",
        ),
        (
            "encoder",
            8,
            'parameters {\n key: "execution" value { string_value: "openvino-bf61" } }',
            9,
            "parameters[execution].value.string_value",
            "'openvino-bf61'",
            "did you mean openvino-bf16?",
        ),
        (
            "encoder",
            8,
            'parameters {\n key: "intra_op_thread_count" value { string_value: "all" } }',
            9,
            "parameters[intra_op_thread_count].value.string_value",
            "is 'all'",
            "whole number from 0",
        ),
        (
            "encoder",
            8,
            'parameters { key: "execution_mode" value { string_value: "2" } }',
            8,
            "parameters[execution_mode].value.string_value",
            "is '2'",
            "from 0 to 1",
        ),
        (
            "encoder",
            8,
            'parameters { key: "maximum.x" value { } }',
            8,
            "parameters[maximum.x]",
            "is ''",
            "whole number",
        ),
        ("ranker", 2, "", 1, "platform", "is '', but the model has ensemble_scheduling", 'platform: "ensemble"'),
        ("ranker", 20, 'backend: "onnxruntime"', 20, "backend", "an ensemble has no backend", "remove it"),
        ("ranker", 20, "dynamic_batching { }", 20, "dynamic_batching", "never batches by itself", "remove it here"),
        ("ranker", 20, "instance_group { }", 20, "instance_group", "runs nothing itself", "remove it"),
        ("ranker", 3, "max_batch_size: 16", 3, "max_batch_size", "head in the ensemble takes 8 at most", "at most 8"),
        (
            "ranker",
            8,
            'model_name: "encodr"',
            8,
            "ensemble_scheduling.step[0].model_name",
            "'encodr', which is not in the repository",
            "did you mean encoder?",
        ),
        (
            "ranker",
            15,
            "model_version: 2",
            15,
            "ensemble_scheduling.step[1].model_version",
            "is 2, but head has 1",
            "write -1",
        ),
        (
            "ranker",
            17,
            'output_map { key: "z" value: "zz" }',
            5,
            "output.name",
            "no step makes 'z'",
            "did you mean zz?",
        ),
        (
            "ranker",
            16,
            'input_map { key: "y" value: "embeding" }',
            16,
            "ensemble_scheduling.step[1].input_map[y].value",
            "'embeding' is no input of the ensemble",
            "did you mean embedding?",
        ),
        (
            "ranker",
            4,
            'input { name: "x" data_type: TYPE_INT64 dims: 4 }',
            10,
            "ensemble_scheduling.step[0].input_map[x].value",
            "'x' is TYPE_INT64 in ranker, but TYPE_FP32 in encoder",
            "make them equal",
        ),
        (
            "ranker",
            4,
            'input { name: "x" data_type: TYPE_FP32 dims: 5 }',
            10,
            "ensemble_scheduling.step[0].input_map[x].value",
            "'x' is [5] in ranker, but [4] in encoder",
            "make them equal",
        ),
        (
            "ranker",
            5,
            'output { name: "z" data_type: TYPE_FP32 dims: [1, 1] }',
            5,
            "output",
            "'z' is [1] in head, but [1, 1] in ranker",
            "make them equal",
        ),
    ],
)
def test_an_error_is_named_with_file_line_and_key(
    repository: Path, model: str, line: int, text: str, at: int, key: str, seen: str, advice: str
) -> None:
    path = break_line(repository, model, line, text)
    (problem,) = [problem for problem in lint(repository) if seen in problem.seen]
    assert (problem.path, problem.line, problem.key, problem.severity) == (path, at, key, "error")
    assert advice in problem.advice


@pytest.mark.parametrize(
    ("model", "line", "text", "expected"),
    [
        ("head", 3, "max_batchsize: 8\nmax_size: 3", [(3, "max_batchsize"), (4, "max_size")]),
        ("ranker", 3, "max_batch_size: 16", [(3, "max_batch_size"), (3, "max_batch_size")]),
        (
            "ranker",
            10,
            'input_map { key: "xx" value: "x" }',
            [(8, "ensemble_scheduling.step[0].model_name"), (10, "ensemble_scheduling.step[0].input_map[xx].key")],
        ),
        (
            "ranker",
            4,
            'input [ { name: "x" data_type: TYPE_FP32 dims: 4 },\n{ name: "w" data_type: TYPE_FP32 dims: 4 } ]',
            [(5, "input[1].name")],
        ),
    ],
)
def test_every_problem_of_a_file_is_reported_in_order(
    repository: Path, model: str, line: int, text: str, expected: list[tuple[int, str]]
) -> None:
    break_line(repository, model, line, text)
    assert [(problem.line, problem.key) for problem in lint(repository)] == expected


@pytest.mark.parametrize(
    ("line", "text", "key"),
    [
        (
            7,
            "dynamic_batching {\n default_priority_level: 2\n priority_levels: 2 }",
            "dynamic_batching.priority_levels",
        ),
        (7, "dynamic_batching {\n\ndefault_queue_policy { } }", "dynamic_batching.default_queue_policy"),
        (
            7,
            "dynamic_batching {\n\npriority_queue_policy { key: 1 value { } } }",
            "dynamic_batching.priority_queue_policy[1]",
        ),
    ],
)
def test_queue_settings_that_stall_triton_are_a_warning(repository: Path, line: int, text: str, key: str) -> None:
    break_line(repository, "encoder", line, text)
    (problem,) = lint(repository)
    assert (problem.line, problem.key, problem.severity) == (9, key, "warning")
    assert "500 ms" in problem.seen


@pytest.mark.parametrize("levels", ["priority_levels: 2", "priority_levels: 2 default_priority_level: 3"])
def test_a_default_priority_outside_the_levels_is_an_error(repository: Path, levels: str) -> None:
    break_line(repository, "encoder", 7, f"dynamic_batching {{ {levels} }}")
    (error,) = [problem for problem in lint(repository) if problem.severity == "error"]
    assert (error.line, error.advice) == (7, "write default_priority_level: 2")


def test_a_parameter_that_nobody_reads_is_a_warning(repository: Path) -> None:
    break_line(repository, "encoder", 8, 'parameters {\n  key: "intra_op_threads" value { string_value: "1" } }')
    (problem,) = lint(repository)
    assert (problem.line, problem.key, problem.severity) == (9, "parameters[intra_op_threads].key", "warning")
    assert problem.advice == "did you mean intra_op_thread_count?"


def test_a_python_model_may_have_any_parameter(repository: Path) -> None:
    break_line(repository, "head", 2, 'backend: "python"')
    break_line(repository, "head", 6, 'parameters { key: "anything" value { string_value: "x" } }')
    assert lint(repository) == []


def test_a_cache_of_gpu_outputs_is_a_warning(repository: Path) -> None:
    break_line(repository, "encoder", 6, "instance_group { kind: KIND_GPU gpus: 0 }")
    (problem,) = lint(repository, gpu_count=1)
    assert (problem.line, problem.key, problem.severity) == (12, "response_cache", "warning")


def test_a_gpu_that_the_machine_lacks_is_an_error(repository: Path) -> None:
    break_line(repository, "head", 6, "instance_group { kind: KIND_GPU gpus: [0, 2] }")
    (problem,) = lint(repository, gpu_count=2)
    assert (problem.line, problem.key) == (6, "instance_group.gpus[0]")
    assert "names GPU 2, but this machine has only 2" in problem.seen


def test_a_model_without_versions_is_an_error(repository: Path) -> None:
    (repository / "head" / "1" / "model.onnx").rename(repository / "head" / "model.onnx")
    (repository / "head" / "1").rename(repository / "head" / "01")  # Triton ignores it
    (problem,) = lint(repository)
    assert (problem.path, problem.line) == (repository / "head" / "config.pbtxt", 1)
    assert f"{repository / 'head' / '1'} is missing" in problem.seen


def test_only_versions_that_are_served_need_their_file(repository: Path) -> None:
    (repository / "head" / "2").mkdir()
    (repository / "head" / "2" / "model.onnx").touch()
    (repository / "head" / "1" / "model.onnx").unlink()
    assert lint(repository) == []
    break_line(repository, "head", 7, "version_policy { all { } }")
    (problem,) = lint(repository)
    assert str(repository / "head" / "1" / "model.onnx") in problem.seen


def test_a_broken_model_is_reported_once_and_not_by_its_ensemble(repository: Path) -> None:
    path = break_line(repository, "encoder", 5, "otput { }")
    assert [(problem.path, problem.line) for problem in lint(repository)] == [(path, 5)]


def test_an_optional_input_need_not_be_mapped(repository: Path) -> None:
    more = 'input { name: "w" data_type: TYPE_FP32 dims: 4 }'
    break_line(repository, "encoder", 13, more)
    assert ["'w' of encoder is not mapped" in problem.seen for problem in lint(repository)] == [True]
    break_line(repository, "encoder", 13, more.replace("}", "optional: true }"))
    assert lint(repository) == []


def test_variants_are_checked_too(repository: Path) -> None:
    path = repository / "encoder" / "configs" / "cpu.pbtxt"
    path.write_text(ENCODER.replace("dynamic_batching", "dynamic_batch"), encoding="utf-8")
    (problem,) = lint(repository)
    assert (problem.path, problem.line, problem.advice) == (path, 7, "did you mean dynamic_batching?")


def test_a_variant_may_be_for_other_hardware(repository: Path) -> None:
    config = ENCODER.replace("KIND_CPU", "KIND_GPU").replace('"onnxruntime"', '"tensorrt"')
    assert config.count("KIND_GPU") == config.count("tensorrt") == 1
    folder = repository / "encoder"
    (folder / "configs" / "tensorrt.pbtxt").write_text(config, encoding="utf-8")
    assert lint(repository) == []
    (folder / "config.pbtxt").write_text(config, encoding="utf-8")
    assert {problem.key for problem in lint(repository)} == {"backend", "instance_group.kind"}


@pytest.mark.parametrize("content", [b"\xff\xfe", "名: 1".encode(), b'name: "\xe8"'])
def test_a_file_that_is_no_text_format_is_one_problem(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_bytes(content)
    file, problems = read_config(path, tmp_path)
    assert (file, len(problems), problems[0].line) == (None, 1, 1)


def test_fields_keep_their_lines_and_unquoted_values() -> None:
    root = parse_fields("a: 1 # not b\n\nb <\n c: 'x\\n' \"y\";\n d: [1,\n -2]\n>\nb { c: 名 }".replace("名", "N"))
    first, second = root.all("b")
    assert (root.text("a"), first.line, first.key, second.line, second.key) == ("1", 3, "b[0]", 8, "b[1]")
    assert (first.text("c"), [(field.value, field.line, field.key) for field in first.all("d")]) == (
        "x\ny",
        [("1", 5, "b[0].d[0]"), ("-2", 6, "b[0].d[1]")],
    )
    assert root.get("b", "missing", "c") is None
