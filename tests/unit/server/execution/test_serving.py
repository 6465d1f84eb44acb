"""What is served: choices measured in a process of their own, remembered, and written into the configurations."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from fakes.dual_encoder import manifest_json
from google.protobuf import text_format
from lychee_server.errors import DeviceError
from lychee_server.execution import device, measuring, serve, serving, with_choice, without_choice
from lychee_server.execution import remembered as remembered_choices
from lychee_server.execution.choice import Choice
from lychee_server.execution.measurement import Measurement, Measurements
from onnx import TensorProto, helper, numpy_helper
from tritonclient.grpc import model_config_pb2

ENCODER = """
backend: "onnxruntime" max_batch_size: 8
input { name: "pixel_values" data_type: TYPE_FP32 dims: 4 }
output { name: "image_embedding" data_type: TYPE_FP32 dims: 4 }
"""
AUTO = 'parameters { key: "execution" value { string_value: "auto" } }'
HEAD = """
backend: "onnxruntime" max_batch_size: 8
input { name: "image_embedding" data_type: TYPE_FP32 dims: 4 }
output { name: "relevance_score" data_type: TYPE_FP32 dims: 1 }
"""
ENSEMBLE = """
platform: "ensemble" max_batch_size: 8
ensemble_scheduling {
  step { model_name: "vision_encoder" model_version: -1
    input_map { key: "pixel_values" value: "pixel_values" }
    output_map { key: "image_embedding" value: "image_embedding" } }
  step { model_name: "scoring_head" model_version: -1
    input_map { key: "image_embedding" value: "image_embedding" }
    output_map { key: "relevance_score" value: "relevance_score" } }
}
"""
WEIGHT = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)


def write_onnx(path: Path, nodes: list[Any], source: str, target: str, width: int, weights: list[Any]) -> None:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(source, TensorProto.FLOAT, ["batch_size", 4])],
        [helper.make_tensor_value_info(target, TensorProto.FLOAT, ["batch_size", width])],
        weights,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Write an encoder that leaves open what executes it, a head, an ensemble, and reference rows."""
    folder = tmp_path / "repository"
    weight = numpy_helper.from_array(WEIGHT, "weight")
    encoder = [helper.make_node("MatMul", ["pixel_values", "weight"], ["image_embedding"])]
    write_onnx(folder / "vision_encoder" / "1" / "model.onnx", encoder, "pixel_values", "image_embedding", 4, [weight])
    head = [
        helper.make_node("ReduceSum", ["image_embedding", "axes"], ["sum"], keepdims=1),
        helper.make_node("Sigmoid", ["sum"], ["relevance_score"]),
    ]
    axes = numpy_helper.from_array(np.array([1]), "axes")
    write_onnx(folder / "scoring_head" / "1" / "model.onnx", head, "image_embedding", "relevance_score", 1, [axes])
    for name, config in (("vision_encoder", ENCODER + AUTO), ("scoring_head", HEAD), ("rerank_image", ENSEMBLE)):
        (folder / name / "1").mkdir(parents=True, exist_ok=True)
        (folder / name / "config.pbtxt").write_text(f'name: "{name}" {config}', encoding="utf-8")
    inputs = np.random.default_rng(1).standard_normal((6, 4)).astype(np.float32)
    scores = 1 / (1 + np.exp(-(inputs.astype(np.float64) @ WEIGHT).sum(1, keepdims=True)))
    write_rows(folder, inputs, scores)
    return folder


def write_rows(repository: Path, inputs: np.ndarray, scores: np.ndarray) -> None:
    """Write the reference rows and a manifest that names them."""
    assets = repository / "client_assets" / "1"
    assets.mkdir(parents=True, exist_ok=True)
    (assets.parent / "config.pbtxt").write_text('name: "client_assets" backend: "onnxruntime"', encoding="utf-8")
    order = np.arange(len(inputs))
    path = assets / "reference_rows.npz"
    np.savez(
        path,
        **{
            "rerank_image.pixel_values": inputs,
            "rerank_image.pixel_values.rows": order,
            "rerank_image.relevance_score": scores,
            "rerank_image.relevance_score.rows": order,
        },
    )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest = manifest_json(artifacts={"tokenizer": "0" * 64, "client_assets/reference_rows.npz": digest})
    (assets / "manifest.json").write_text(manifest, encoding="utf-8")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Return a folder for what is remembered."""
    return tmp_path / "cache"


def remembered(cache: Path) -> Path:
    (path,) = (cache / "execution").glob("*.json")
    return path


def read_config(served: Path) -> Any:
    text = (served / "vision_encoder" / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_a_choice_is_measured_written_and_remembered(repository: Path, cache: Path) -> None:
    first = serve(repository, None, 0.01, cache)
    assert first.note.startswith("measured in ")
    assert first.choices["vision_encoder"].reason
    config = read_config(first.path)
    assert config.parameters["execution"].string_value == first.choices["vision_encoder"].execution != "auto"
    assert config.parameters["execution_reason"].string_value == first.choices["vision_encoder"].reason
    assert config.parameters["error_budget"].string_value == "0.01"
    again = serve(repository, None, 0.01, cache)
    assert (again.choices, again.note, again.path) == (first.choices, "remembered", first.path)


def test_repositories_that_no_server_has_are_removed_but_for_the_last_ones(repository: Path, cache: Path) -> None:
    current = serve(repository, None, 0.01, cache).path
    others = [current.parent / f"{number:016x}" for number in range(serving.MOST_UNUSED + 2)]
    for number, path in enumerate(others):
        (path / "model").mkdir(parents=True)
        (path / "model" / "1").symlink_to(repository / "vision_encoder" / "1")
        os.utime(path, (number + 1, number + 1))
    os.utime(current, (0, 0))
    triton = [sys.executable, "-c", "input()", f"--model-repository={others[0]}"]
    with subprocess.Popen(triton, stdin=subprocess.PIPE) as process:
        assert serve(repository, None, 0.01, cache).path == current
        assert set(current.parent.iterdir()) == {current, *others} - {others[1]}
        process.communicate(b"\n")
    os.utime(current, (0, 0))
    serve(repository, None, 0.01, cache)
    assert set(current.parent.iterdir()) == {current, *others[2:]}
    assert (repository / "vision_encoder" / "1" / "model.onnx").is_file()


def test_everything_else_is_served_as_it_was_exported(repository: Path, cache: Path) -> None:
    before = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}
    served = serve(repository, None, 0.01, cache).path
    names = {path.relative_to(served) for path in served.glob("*/**/*") if path.is_file()}
    assert Path("vision_encoder/config.pbtxt") in names
    assert {path.name for path in served.iterdir()} == {path.name for path in repository.iterdir()}
    for name in ("scoring_head", "rerank_image", "client_assets"):
        assert (served / name).resolve() == (repository / name).resolve()
    assert (served / "vision_encoder" / "1").resolve() == (repository / "vision_encoder" / "1").resolve()
    assert {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()} == before


def test_a_repository_that_leaves_nothing_open_is_served_itself(repository: Path, cache: Path) -> None:
    config = repository / "vision_encoder" / "config.pbtxt"
    config.write_text(f'name: "vision_encoder" {ENCODER}', encoding="utf-8")
    served = serve(repository, None, 0.01, cache)
    assert (served.path, served.choices, served.note) == (repository, {}, "")


def test_a_variant_that_names_what_executes_is_obeyed(repository: Path, cache: Path) -> None:
    configs = repository / "vision_encoder" / "configs"
    configs.mkdir()
    (configs / "cpu.pbtxt").write_text(f'name: "vision_encoder" {ENCODER}', encoding="utf-8")
    assert serve(repository, "cpu", 0.01, cache).path == repository


def test_a_variant_that_leaves_it_open_is_what_is_served(repository: Path, cache: Path) -> None:
    configs = repository / "vision_encoder" / "configs"
    configs.mkdir()
    tuned = f'name: "vision_encoder" {ENCODER} {AUTO} instance_group {{ count: 2 kind: KIND_CPU }}'
    (configs / "tuned.pbtxt").write_text(tuned, encoding="utf-8")
    config = read_config(serve(repository, "tuned", 0.01, cache).path)
    assert config.instance_group[0].count == 2
    assert config.parameters["execution"].string_value != "auto"


def test_another_cpu_or_version_or_file_measures_again(repository: Path, cache: Path) -> None:
    serve(repository, None, 0.01, cache)
    path = remembered(cache)
    for circumstance, what in (("CPU", "CPU"), ("version of ONNX Runtime", "version of ONNX Runtime")):
        content = json.loads(path.read_text(encoding="utf-8"))
        content["circumstances"][circumstance] = "another"
        path.write_text(json.dumps(content), encoding="utf-8")
        note = serve(repository, None, 0.01, cache).note
        assert f"again, for another {what} than remembered" in note
    model = repository / "vision_encoder" / "1" / "model.onnx"
    model.write_bytes(model.read_bytes())
    assert "another export than remembered" in serve(repository, None, 0.01, cache).note
    assert serve(repository, None, 0.01, cache).note == "remembered"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"circumstances": 1, "choices": 2}', "\x00"])
def test_a_damaged_memory_is_measured_again(repository: Path, cache: Path, content: str) -> None:
    serve(repository, None, 0.01, cache)
    remembered(cache).write_text(content, encoding="utf-8")
    assert serve(repository, None, 0.01, cache).note.startswith("measured in ")


def test_budgets_do_not_forget_each_other(repository: Path, cache: Path) -> None:
    for budget in (0.01, 0.0):
        serve(repository, None, budget, cache)
    assert [serve(repository, None, budget, cache).note for budget in (0.01, 0.0)] == ["remembered"] * 2


def test_missing_rows_mean_the_plain_cpu_provider_and_a_word(repository: Path, cache: Path) -> None:
    (repository / "client_assets" / "1" / "reference_rows.npz").unlink()
    served = serve(repository, None, 0.01, cache)
    assert served.choices["vision_encoder"].execution == "cpu-fp32"
    assert "has no reference_rows.npz; run `lychee export` again" in served.note


def test_rows_of_another_export_mean_the_plain_cpu_provider_and_a_word(repository: Path, cache: Path) -> None:
    path = repository / "client_assets" / "1" / "reference_rows.npz"
    np.savez(path, **{"rerank_image.pixel_values": np.zeros((1, 4), np.float32)})
    served = serve(repository, None, 0.01, cache)
    assert served.choices["vision_encoder"].execution == "cpu-fp32"
    assert "is not the one that the manifest names" in served.choices["vision_encoder"].reason


def test_rows_that_do_not_fit_the_ensembles_do_not_stop_a_server(repository: Path, cache: Path) -> None:
    (repository / "rerank_image" / "config.pbtxt").unlink()
    served = serve(repository, None, 0.01, cache)
    assert served.choices["vision_encoder"].execution == "cpu-fp32"
    assert "nothing was measured: measuring ended with exit code 1: KeyError: 'rerank_image'" in served.note


def test_a_measuring_process_that_hangs_does_not_stop_a_server(
    repository: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "MEASURING_TIMEOUT_S", 0.01)
    served = serve(repository, None, 0.01, cache)
    assert served.choices["vision_encoder"] == Choice("cpu-fp32", "measuring took more than 0.01 s")


def test_files_that_differ_from_their_reference_are_named(repository: Path, cache: Path) -> None:
    rows = np.ones((2, 4), np.float32)
    write_rows(repository, rows, np.full((2, 1), 0.123))
    choice = serve(repository, None, 0.01, cache).choices["vision_encoder"]
    assert choice.execution == "cpu-fp32"
    assert "cpu-fp32 itself is off by" in choice.reason


def test_a_choice_can_be_opened_again() -> None:
    config = text_format.Parse(f'name: "vision_encoder" {ENCODER} {AUTO}', model_config_pb2.ModelConfig())
    chosen = with_choice(config, Choice("openvino-bf16", "fast"), 0.01)
    assert chosen.parameters["execution"].string_value == "openvino-bf16"
    assert without_choice(chosen) == config


TOKENS = """
backend: "onnxruntime" max_batch_size: 8 dynamic_batching {}
input { name: "input_ids" data_type: TYPE_INT64 dims: -1 }
input { name: "attention_mask" data_type: TYPE_INT64 dims: -1 }
output { name: "hidden" data_type: TYPE_FP32 dims: 4 }
"""
IMAGES = 'input { name: "image_embeds" data_type: TYPE_FP32 dims: [-1, 4] }'


@pytest.mark.parametrize(
    ("text", "merges"),
    [
        (TOKENS, True),
        (TOKENS.replace("dynamic_batching {}", ""), False),
        (TOKENS.replace("dims: -1", "dims: 16"), False),
        (TOKENS + IMAGES, False),
    ],
)
def test_requests_of_several_lengths_are_merged_where_a_model_reads_tokens_alone(text: str, merges: bool) -> None:
    config = text_format.Parse(f'name: "text_encoder" {text} {AUTO}', model_config_pb2.ModelConfig())
    chosen = with_choice(config, Choice("cpu-fp32", "fast"), 0.0)
    assert [tensor.allow_ragged_batch for tensor in chosen.input] == [merges] * len(config.input)
    assert without_choice(chosen) == config


GPU_GROUP = "instance_group { count: 2 kind: KIND_GPU gpus: [1, 3] }"


@pytest.fixture
def gpu_repository(repository: Path) -> Path:
    """Return the repository with the encoder exported for a GPU."""
    text = f'name: "vision_encoder" {ENCODER} {GPU_GROUP}'
    (repository / "vision_encoder" / "config.pbtxt").write_text(text, encoding="utf-8")
    return repository


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let a GPU be usable; return who asked for one."""
    askers: list[str] = []
    monkeypatch.setattr(serving, "require_gpu", askers.append)
    return askers


def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "find_gpu_problem", lambda: "this onnxruntime has only CPUExecutionProvider")


@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_what_was_exported_for_gpus_is_refused_where_none_can_be_used(
    gpu_repository: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, asked: Any
) -> None:
    no_gpu(monkeypatch)
    with pytest.raises(DeviceError, match=r"repository was exported for GPUs \(vision_encoder\), and no GPU can be"):
        serve(gpu_repository, None, 0.01, cache, asked)
    assert not (cache / "served").exists()


def test_what_was_exported_for_gpus_runs_on_a_cpu_that_was_asked_for(
    gpu_repository: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_gpu(monkeypatch)
    served = serve(gpu_repository, None, 0.01, cache, "cpu")
    config = read_config(served.path)
    assert served.choices == {"vision_encoder": Choice("cpu-fp32", "--device cpu")}
    assert config.parameters["execution"].string_value == "cpu-fp32"
    assert "device" not in config.parameters
    assert config.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_CPU


def test_bfloat16_for_gpus_is_refused_on_a_cpu_that_was_asked_for(gpu_repository: Path, cache: Path) -> None:
    path = gpu_repository / "client_assets" / "1" / "manifest.json"
    path.write_text(manifest_json(precision="bf16"), encoding="utf-8")
    with pytest.raises(DeviceError, match=r"--device is cpu, and .* holds vision_encoder in bf16, which ONNX Runtime"):
        serve(gpu_repository, None, 0.01, cache, "cpu")


@pytest.mark.parametrize(
    ("precision", "execution"),
    [("fp16", "cuda-fp16"), ("bf16", "cuda-bf16"), ("fp32", "cuda-fp32"), ("w4", "cuda-fp32")],
)
def test_our_backend_gets_the_gpu_and_triton_none(
    gpu_repository: Path, cache: Path, gpu: list[str], precision: str, execution: str
) -> None:
    path = gpu_repository / "client_assets" / "1" / "manifest.json"
    path.write_text(manifest_json(precision=precision), encoding="utf-8")
    config = read_config(serve(gpu_repository, None, 0.01, cache).path)
    told = {name: value.string_value for name, value in config.parameters.items()}
    assert gpu == [f"{gpu_repository} was exported for GPUs (vision_encoder)"]
    assert told["execution"] == execution
    assert (told["execution_reason"], told["device"], told["gpus"]) == ("exported for GPUs", "cuda", "1,3")
    (group,) = config.instance_group
    assert (group.kind, group.count, list(group.gpus)) == (model_config_pb2.ModelInstanceGroup.KIND_CPU, 4, [])
    assert read_config(gpu_repository).instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_GPU


def test_a_gpu_that_was_asked_for_is_taken_though_nothing_was_measured_on_it(
    repository: Path, cache: Path, gpu: list[str]
) -> None:
    config = read_config(serve(repository, None, 0.01, cache, "cuda").path)
    assert gpu == ["--device is cuda"]
    assert config.parameters["execution"].string_value == "cuda-fp32"
    assert config.parameters["device"].string_value == "cuda"
    assert config.parameters["execution_reason"].string_value.startswith("--device cuda; ")


def test_a_gpu_that_measured_best_is_asked_for_only_with_the_option(
    repository: Path, cache: Path, gpu: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = []

    def measure(task: Any) -> Measurements:
        tasks.append(task.device)
        found = {"cpu-fp32": Measurement(speed=1.0), "cuda-tf32": Measurement(0.001, speed=9.0)}
        return Measurements({"vision_encoder": found})

    monkeypatch.setattr(serving, "_measure", measure)
    free, asked = (serve(repository, None, 0.01, cache, wish).choices["vision_encoder"] for wish in ("auto", "cuda"))
    assert (free.execution, free.required) == ("cuda-tf32", False)
    assert (asked.execution, asked.required) == ("cuda-tf32", True)
    assert tasks == ["auto", "cuda"]  # one wish does not remember what was measured for another


def test_a_gpu_is_refused_where_every_model_is_fixed_to_cpus(repository: Path, cache: Path, gpu: list[str]) -> None:
    config = repository / "vision_encoder" / "config.pbtxt"
    config.write_text(f'name: "vision_encoder" {ENCODER}', encoding="utf-8")
    with pytest.raises(DeviceError, match=r"--device is cuda, and .* fixes what executes each of its models"):
        serve(repository, None, 0.01, cache, "cuda")


def test_a_gpu_that_lies_idle_is_worth_a_word(repository: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "unused_gpu", lambda: "NVIDIA A10 is not used")
    assert serve(repository, None, 0.01, cache).note.endswith("; NVIDIA A10 is not used")
    assert "A10" not in serve(repository, None, 0.01, cache, "cpu").note


def test_another_gpu_or_driver_measures_again(repository: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(repository, None, 0.01, cache)
    monkeypatch.setattr(remembered_choices, "read_gpus", lambda: ["NVIDIA A10"])
    assert "again, for another GPU or driver than remembered" in serve(repository, None, 0.01, cache).note


@pytest.mark.parametrize(
    ("asked", "budget", "tried"),
    [
        ("auto", 0.01, ["cuda-tf32", "cuda-fp32", "openvino-bf16"]),
        ("auto", 0.0, ["cuda-fp32"]),
        ("cpu", 0.01, ["openvino-bf16"]),
        ("cuda", 0.01, ["cuda-tf32", "cuda-fp32"]),
    ],
)
def test_the_device_and_the_budget_say_what_is_tried(
    repository: Path, monkeypatch: pytest.MonkeyPatch, asked: str, budget: float, tried: list[str]
) -> None:
    opened = []

    def open_one(task: Any, model: str, execution: str) -> Any:
        if execution == "cpu-fp32":
            return onnxruntime.InferenceSession(task.models[model].path, providers=["CPUExecutionProvider"])
        opened.append(execution)
        raise RuntimeError("no such device")

    monkeypatch.setattr(measuring, "_open", open_one)
    configs = {path.parent.name: serving.read_config(path.parent) for path in repository.glob("*/config.pbtxt")}
    folders = {name: repository / name for name in configs}
    rows = repository / "client_assets" / "1" / "reference_rows.npz"
    task = dataclasses.replace(serving._make_task(folders, configs, rows, budget, repository), device=asked)
    measuring.measure(task, ["cpu-fp32", "openvino-bf16", "cuda-fp32", "cuda-tf32"], time.perf_counter())
    assert opened == tried
