"""The onnxruntime backend, against a stand-in for Triton."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

OPENVINO = {"cpu_execution_accelerator": [{"name": "openvino", "parameters": {"precision": "bf16"}}]}


def rows(*values: float) -> np.ndarray:
    return np.array([[value, value] for value in values], dtype=np.float32)  # (len(values), 2)


def count_runs(instance: Any) -> list[list[str]]:
    """Return a list that will hold the output names of each run from now on."""
    runs: list[list[str]] = []
    session = instance._session

    def run(names: list[str], feed: dict[str, np.ndarray]) -> Any:
        runs.append(names)
        return session.run(names, feed)

    instance._session = types.SimpleNamespace(run=run)
    return runs


def lookup_graph() -> onnx.GraphProto:
    """Return embedding = table[ids] for a table of 4 rows, with a mask of the same length that is added."""
    table = numpy_helper.from_array(np.arange(4, dtype=np.float32), "table")
    return helper.make_graph(
        [
            helper.make_node("Gather", ["table", "ids"], ["looked_up"]),
            helper.make_node("ReduceSum", ["looked_up", "axes"], ["y"], keepdims=1),
            helper.make_node("ReduceSum", ["mask", "axes"], ["count"], keepdims=1),
        ],
        "lookup",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch_size", "length"]) for name in ("ids", "mask")],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch_size", 1]),
            helper.make_tensor_value_info("count", TensorProto.INT64, ["batch_size", 1]),
        ],
        [table, numpy_helper.from_array(np.array([1]), "axes")],
    )


LOOKUP_CONFIG: dict[str, Any] = {
    "name": "tiny",
    "max_batch_size": 8,
    "input": [
        {"name": "ids", "data_type": "TYPE_INT64", "dims": [-1]},
        {"name": "mask", "data_type": "TYPE_INT64", "dims": [-1]},
    ],
    "output": [
        {"name": "y", "data_type": "TYPE_FP32", "dims": [1]},
        {"name": "count", "data_type": "TYPE_INT64", "dims": [1]},
    ],
}


def ids(*values: int) -> np.ndarray:
    return np.array([values], dtype=np.int64)  # (1, len(values))


def test_execute_runs_a_batch_once_and_splits_it(
    load_model: Callable[..., Any], double_graph: Any, double_config: Any, request_class: Any
) -> None:
    instance = load_model(double_graph, double_config)
    runs = count_runs(instance)
    responses = instance.execute([request_class({"x": rows(1)}), request_class({"x": rows(2, 3, 4)})])
    assert len(runs) == 1
    np.testing.assert_array_equal(responses[0].arrays()["y"], rows(2))
    np.testing.assert_array_equal(responses[1].arrays()["y"], rows(4, 6, 8))


def test_execute_runs_requests_of_one_shape_together_whatever_comes_between(
    load_model: Callable[..., Any], double_graph: Any, double_config: Any, request_class: Any
) -> None:
    instance = load_model(double_graph, double_config)
    runs = count_runs(instance)
    wide = np.ones((1, 5), dtype=np.float32)
    bad = np.array([[np.nan, 1, 1, 1, 1]], dtype=np.float32)
    responses = instance.execute([request_class({"x": array}) for array in (rows(1), wide, rows(3), bad)])
    assert len(runs) == 2
    assert responses[3].error is not None
    for response, expected in zip(responses[:3], (rows(2), 2 * wide, rows(6)), strict=True):
        np.testing.assert_array_equal(response.arrays()["y"], expected)


def test_execute_computes_only_what_the_requests_want(load_model: Callable[..., Any], request_class: Any) -> None:
    instance = load_model(lookup_graph(), LOOKUP_CONFIG)
    runs = count_runs(instance)
    feed = {"ids": ids(1, 2), "mask": ids(1, 1)}
    (response,) = instance.execute([request_class(feed, ["count"])])
    assert runs == [["count"]]
    assert response.arrays().keys() == {"count"}
    first, second = instance.execute([request_class(feed, ["count"]), request_class(feed, ["y"])])
    assert (first.arrays().keys(), second.arrays().keys()) == ({"count"}, {"y"})
    instance.execute([request_class(feed, ["count"]), request_class(feed, ["count"])])
    assert runs[-1] == ["count"]


@pytest.mark.parametrize(("limit", "runs_expected"), [(1, 5), (4, 3), (5, 3), (10, 1)])
def test_execute_runs_a_large_batch_in_slices(
    load_model: Callable[..., Any],
    double_graph: Any,
    double_config: Any,
    request_class: Any,
    limit: int,
    runs_expected: int,
) -> None:
    double_config["parameters"] = {"max_run_elements": {"string_value": str(limit)}}
    instance = load_model(double_graph, double_config)
    runs = count_runs(instance)
    first, second = instance.execute([request_class({"x": rows(1, 2)}), request_class({"x": rows(3, 4, 5)})])
    assert len(runs) == runs_expected
    np.testing.assert_array_equal(first.arrays()["y"], rows(2, 4))
    np.testing.assert_array_equal(second.arrays()["y"], rows(6, 8, 10))


@pytest.mark.parametrize(("counted", "runs_expected"), [("ids", 1), ("mask", 1), ("", 32)])
def test_execute_counts_the_input_that_is_named_whatever_else_a_row_has(
    load_model: Callable[..., Any], request_class: Any, counted: str, runs_expected: int
) -> None:
    """A text's row holds a dummy of image embeddings as wide as the model: 32 texts ran one by one."""
    axes = {"ids": "length", "mask": "length", "image_embeds": "places"}
    types = {"ids": TensorProto.INT64, "mask": TensorProto.INT64, "image_embeds": TensorProto.FLOAT}
    width = [3584]
    graph = helper.make_graph(
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in axes],
        "wide",
        *(
            [
                helper.make_tensor_value_info(
                    f"{name}{end}", types[name], ["batch_size", axis, *(width if name == "image_embeds" else [])]
                )
                for name, axis in axes.items()
            ]
            for end in ("", "_out")
        ),
    )
    kinds = {name: "TYPE_FP32" if name == "image_embeds" else "TYPE_INT64" for name in axes}
    parameters = {"max_run_elements": {"string_value": "4096"}, "run_input": {"string_value": counted}}
    config = {
        "max_batch_size": 32,
        "parameters": parameters,
        **{
            side: [
                {"name": f"{name}{end}", "data_type": kinds[name], "dims": [-1, *(width if "image" in name else [])]}
                for name in axes
            ]
            for side, end in (("input", ""), ("output", "_out"))
        },
    }
    instance = load_model(graph, config)
    runs = count_runs(instance)
    text = np.ones((1, 64), np.int64)
    row = {"ids": text, "mask": text, "image_embeds": np.zeros((1, 1, *width), np.float32)}
    responses = instance.execute([request_class(row, ["ids_out"]) for _ in range(32)])
    assert all(response.error is None for response in responses)
    assert len(runs) == runs_expected


def test_execute_without_batching_takes_requests_as_they_are(
    load_model: Callable[..., Any], double_graph: Any, double_config: Any, request_class: Any
) -> None:
    entry = {"data_type": "TYPE_FP32", "dims": [-1, -1]}
    config = {**double_config, "max_batch_size": 0}
    config |= {"input": [{"name": "x", **entry}], "output": [{"name": "y", **entry}]}
    instance = load_model(double_graph, config)
    runs = count_runs(instance)
    responses = instance.execute([request_class({"x": rows(1)}), request_class({"x": rows(2)})])
    assert len(runs) == 2
    np.testing.assert_array_equal(responses[1].arrays()["y"], rows(4))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_execute_refuses_values_that_are_not_finite(
    load_model: Callable[..., Any], double_graph: Any, double_config: Any, request_class: Any, bad: float
) -> None:
    instance = load_model(double_graph, double_config)
    mixed = np.array([[1, bad]], np.float32)
    good, refused = instance.execute([request_class({"x": rows(1)}), request_class({"x": mixed})])
    np.testing.assert_array_equal(good.arrays()["y"], rows(2))
    assert refused.error.code == refused.error.INVALID_ARG
    assert "input x has NaN or infinite" in refused.error.text


def test_row_that_overflows_is_nan_throughout_and_alone(
    load_model: Callable[..., Any], double_graph: Any, double_config: Any, request_class: Any
) -> None:
    instance = load_model(double_graph, double_config)
    runs = count_runs(instance)
    overflowing = np.array([[1, 2], [3, 3e38]], np.float32)
    good, spoiled = instance.execute([request_class({"x": rows(1)}), request_class({"x": overflowing})])
    np.testing.assert_array_equal(good.arrays()["y"], rows(2))
    np.testing.assert_array_equal(spoiled.arrays()["y"], [[2, 4], [np.nan, np.nan]])
    assert len(runs) == 1


def test_row_that_an_earlier_model_lost_stays_lost(
    load_model: Callable[..., Any], double_config: Any, request_class: Any
) -> None:
    """Whatever this model would make of it: OpenVINO's ReLU makes 0 of NaN."""
    shape = ["batch_size", "width"]
    nodes = [
        helper.make_node("IsNaN", ["x"], ["is_nan"]),
        helper.make_node("Where", ["is_nan", "zero", "x"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "forgetful",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.zeros(1, np.float32), "zero")],
    )
    (response,) = load_model(graph, double_config).execute([request_class({"x": rows(1, np.nan, 2)})])
    np.testing.assert_array_equal(response.arrays()["y"], rows(1, np.nan, 2))


def test_execute_refuses_axes_of_one_name_and_two_sizes(load_model: Callable[..., Any], request_class: Any) -> None:
    instance = load_model(lookup_graph(), LOOKUP_CONFIG)
    (response,) = instance.execute([request_class({"ids": ids(1, 2), "mask": ids(1, 1, 1)})])
    assert response.error.code == response.error.INVALID_ARG
    assert "length is 2 in input ids and 3 in input mask" in response.error.text


@pytest.mark.parametrize("value", [-1, 3])
def test_execute_refuses_integers_beyond_the_maximum(
    load_model: Callable[..., Any], request_class: Any, value: int
) -> None:
    config = {**LOOKUP_CONFIG, "parameters": {"maximum.ids": {"string_value": "2"}}}
    instance = load_model(lookup_graph(), config)
    good, refused = instance.execute(
        [request_class({"ids": ids(0, 2), "mask": ids(1, 1)}), request_class({"ids": ids(1, value), "mask": ids(1, 1)})]
    )
    np.testing.assert_array_equal(good.arrays()["y"], [[2.0]])
    assert refused.error.code == refused.error.INVALID_ARG
    assert f"from {min(1, value)} to {max(1, value)}; expected 0 to 2" in refused.error.text


def test_execute_refuses_a_mask_that_leaves_no_token(
    load_model: Callable[..., Any], request_class: Any, backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "ATTENTION_MASK", "mask")
    instance = load_model(lookup_graph(), LOOKUP_CONFIG)
    good, refused = instance.execute(
        [request_class({"ids": ids(0, 2), "mask": ids(1, 0)}), request_class({"ids": ids(0, 2), "mask": ids(0, 0)})]
    )
    assert good.error is None
    assert refused.error.code == refused.error.INVALID_ARG
    assert "input mask has a row of zeros" in refused.error.text


def test_execute_refuses_an_axis_beyond_its_maximum(load_model: Callable[..., Any], request_class: Any) -> None:
    config = {**LOOKUP_CONFIG, "parameters": {"maximum.length": {"string_value": "2"}}}
    instance = load_model(lookup_graph(), config)
    good, refused = instance.execute(
        [
            request_class({"ids": ids(0, 2), "mask": ids(1, 1)}),
            request_class({"ids": ids(0, 0, 0), "mask": ids(1, 1, 1)}),
        ]
    )
    np.testing.assert_array_equal(good.arrays()["y"], [[2.0]])
    assert refused.error.code == refused.error.INVALID_ARG
    assert "length is 3 in input ids; expected at most 2" in refused.error.text


def test_execute_lets_only_the_request_fail_that_the_model_refuses(
    load_model: Callable[..., Any], request_class: Any
) -> None:
    instance = load_model(lookup_graph(), LOOKUP_CONFIG)
    good, refused = instance.execute(
        [request_class({"ids": ids(3), "mask": ids(1)}), request_class({"ids": ids(9), "mask": ids(1)})]
    )
    np.testing.assert_array_equal(good.arrays()["y"], [[3.0]])
    assert refused.error.code == refused.error.INVALID_ARG
    assert "out of data bounds" in refused.error.text


def test_execute_names_a_missing_input(
    load_model: Callable[..., Any], double_graph: Any, double_config: Any, request_class: Any
) -> None:
    (response,) = load_model(double_graph, double_config).execute([request_class({})])
    assert "input x is missing" in response.error.text


def test_strings_go_in_and_come_out(load_model: Callable[..., Any], request_class: Any) -> None:
    shape = ["batch_size", "width"]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "echo",
        [helper.make_tensor_value_info("x", TensorProto.STRING, shape)],
        [helper.make_tensor_value_info("y", TensorProto.STRING, shape)],
    )
    entry = {"data_type": "TYPE_STRING", "dims": [2]}
    instance = load_model(
        graph, {"max_batch_size": 4, "input": [{"name": "x", **entry}], "output": [{"name": "y", **entry}]}
    )
    texts = np.array([["荔枝".encode(), b""]], dtype=np.object_)
    broken = np.array([[b"\xff", b""]], dtype=np.object_)
    first, second, refused = instance.execute([request_class({"x": x}) for x in (texts, texts, broken)])
    assert first.arrays()["y"].tolist() == second.arrays()["y"].tolist() == texts.tolist()
    assert "input x is not UTF-8" in refused.error.text


def test_a_model_without_inputs_is_computed_once(load_model: Callable[..., Any], request_class: Any) -> None:
    value = helper.make_tensor("value", TensorProto.STRING, [1], ["荔枝".encode()])
    graph = helper.make_graph(
        [helper.make_node("Constant", [], ["y"], value=value)],
        "constant",
        [],
        [helper.make_tensor_value_info("y", TensorProto.STRING, [1])],
    )
    instance = load_model(
        graph, {"max_batch_size": 0, "output": [{"name": "y", "data_type": "TYPE_STRING", "dims": [1]}]}
    )
    assert instance._session is None
    for response in instance.execute([request_class({}), request_class({})]):
        assert response.arrays()["y"].tolist() == ["荔枝".encode()]


def test_initialize_names_a_missing_file(load_model: Callable[..., Any], double_config: Any, pb_utils: Any) -> None:
    with pytest.raises(pb_utils.TritonModelException, match=r"tiny/1/model\.onnx is missing.*lychee export"):
        load_model(None, double_config)


@pytest.mark.parametrize("accelerators", [{}, OPENVINO])
@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1"])
def test_initialize_names_a_damaged_file(
    load_model: Callable[..., Any], double_config: Any, pb_utils: Any, content: bytes, accelerators: Any
) -> None:
    double_config["optimization"] = {"execution_accelerators": accelerators}
    with pytest.raises(pb_utils.TritonModelException, match=rf"model\.onnx \({len(content)} bytes\).*lychee export"):
        load_model(content, double_config)


def test_initialize_takes_the_default_model_filename(
    load_model: Callable[..., Any], double_graph: Any, double_config: Any
) -> None:
    load_model(double_graph, {**double_config, "default_model_filename": "double.onnx"})


@pytest.mark.parametrize(
    ("side", "entry", "message"),
    [
        ("input", {"name": "z"}, r"inputs are \['x'\], config.pbtxt has \['z'\]"),
        ("output", {"name": "z"}, r"outputs are \['y'\], config.pbtxt has \['z'\]"),
        ("input", {"data_type": "TYPE_INT64"}, r"input x is tensor\(float\), config.pbtxt has TYPE_INT64"),
        ("input", {"dims": [-1, -1]}, r"input x has shape .*config.pbtxt has \[-1, -1, -1\]"),
    ],
)
def test_initialize_compares_the_configuration_with_the_file(
    load_model: Callable[..., Any],
    double_graph: Any,
    double_config: Any,
    pb_utils: Any,
    side: str,
    entry: Any,
    message: str,
) -> None:
    double_config[side][0] |= entry
    with pytest.raises(pb_utils.TritonModelException, match=message):
        load_model(double_graph, double_config)


@pytest.mark.parametrize("dims", [[-1], [5], [1, 1]])
def test_initialize_refuses_other_dimensions_than_the_fixed_ones(
    load_model: Callable[..., Any], pb_utils: Any, dims: list[int]
) -> None:
    outputs = [{**LOOKUP_CONFIG["output"][0], "dims": dims}, LOOKUP_CONFIG["output"][1]]
    with pytest.raises(pb_utils.TritonModelException, match=r"output y has shape \['batch_size', 1\]"):
        load_model(lookup_graph(), {**LOOKUP_CONFIG, "output": outputs})


def test_initialize_refuses_a_fixed_batch_axis(
    load_model: Callable[..., Any], double_config: Any, pb_utils: Any
) -> None:
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "double",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, "width"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, "width"])],
    )
    with pytest.raises(pb_utils.TritonModelException, match=r"input x has shape \[1, 'width'\]"):
        load_model(graph, double_config)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("intra_op_thread_count", "two"),
        ("inter_op_thread_count", "-1"),
        ("execution_mode", "2"),
        ("enable_mem_arena", "yes"),
        ("run_input", "z"),
        ("maximum.x", "1.5"),
        ("maximum.z", "1"),
    ],
)
def test_initialize_names_a_bad_parameter(
    load_model: Callable[..., Any], double_graph: Any, double_config: Any, pb_utils: Any, key: str, value: str
) -> None:
    double_config["parameters"] = {key: {"string_value": value}}
    with pytest.raises(pb_utils.TritonModelException, match=f"parameter {key}"):
        load_model(double_graph, double_config)


def test_settings_reach_the_session_options(backend: Any) -> None:
    texts = {"intra_op_thread_count": "3", "inter_op_thread_count": "2", "execution_mode": "1", "enable_mem_arena": "0"}
    config = {
        "parameters": {key: {"string_value": text} for key, text in texts.items()},
        "optimization": {"graph": {"level": -1}},
    }
    options = backend.Settings.from_config(config).session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 2)
    assert options.execution_mode == backend.ort.ExecutionMode.ORT_PARALLEL
    assert not options.enable_cpu_mem_arena
    assert options.graph_optimization_level == backend.ort.GraphOptimizationLevel.ORT_ENABLE_BASIC


@pytest.mark.parametrize("text", ["true", "True", "on", "1", None])
def test_memory_switches_take_the_words_of_the_other_backend(backend: Any, text: str | None) -> None:
    off = {"true": "false", "True": "FALSE", "on": "off", "1": "0", None: "0"}[text]
    for words, expected in ((text, True), (off, False)):
        names = ("enable_mem_arena", "enable_mem_pattern")
        parameters = {} if words is None else {name: {"string_value": words} for name in names}
        options = backend.Settings.from_config({"parameters": parameters}).session_options()
        assert (options.enable_cpu_mem_arena, options.enable_mem_pattern) == (expected, expected)


def test_no_thread_count_means_all_cpus_of_the_process(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend.os, "sched_getaffinity", lambda pid: {1, 4, 5})
    assert backend.Settings.from_config({}).session_options().intra_op_num_threads == 3


def test_an_unknown_accelerator_fails_the_load(
    load_model: Callable[..., Any], double_graph: Any, double_config: Any, pb_utils: Any
) -> None:
    double_config["optimization"] = {"execution_accelerators": {"cpu_execution_accelerator": [{"name": "magic"}]}}
    with pytest.raises(pb_utils.TritonModelException, match="unknown Execution Accelerator 'magic'"):
        load_model(double_graph, double_config)


def test_an_unknown_precision_fails_the_load(
    load_model: Callable[..., Any], double_graph: Any, double_config: Any, pb_utils: Any
) -> None:
    accelerator = {"name": "openvino", "parameters": {"precision": "int3"}}
    double_config["optimization"] = {"execution_accelerators": {"cpu_execution_accelerator": [accelerator]}}
    with pytest.raises(pb_utils.TritonModelException, match="precision of accelerator openvino is 'int3'"):
        load_model(double_graph, double_config)


def test_a_model_in_bfloat16_is_refused_with_the_precision_to_use(
    load_model: Callable[..., Any], double_graph: Any, double_config: Any, pb_utils: Any
) -> None:
    del double_graph.node[:]
    for operator, inputs, output, attributes in (
        ("Cast", ["x"], "narrow", {"to": onnx.TensorProto.BFLOAT16}),
        ("Add", ["narrow", "narrow"], "sum", {}),
        ("Cast", ["sum"], "y", {"to": onnx.TensorProto.FLOAT}),
    ):
        double_graph.node.append(onnx.helper.make_node(operator, inputs, [output], **attributes))
    with pytest.raises(pb_utils.TritonModelException, match=r"no kernel .*Add.*bf16 needs a GPU.*--precision fp32"):
        load_model(double_graph, double_config)


def test_a_gpu_accelerator_is_ignored_with_a_warning(
    load_model: Callable[..., Any], double_graph: Any, double_config: Any, pb_utils: Any
) -> None:
    double_config["optimization"] = {"execution_accelerators": {"gpu_execution_accelerator": [{"name": "tensorrt"}]}}
    load_model(double_graph, double_config)
    assert pb_utils.warnings == ["GPU Execution Accelerator 'tensorrt' is ignored on a CPU"]
    assert pb_utils.published[0]["provider"] == "CPUExecutionProvider"


@pytest.mark.parametrize(("flags", "precision"), [("avx2 avx512_bf16", "bf16"), ("avx2", "fp32")])
def test_openvino_computes_in_bf16_where_the_cpu_can(
    load_model: Callable[..., Any],
    double_graph: Any,
    double_config: Any,
    pb_utils: Any,
    backend: Any,
    monkeypatch: pytest.MonkeyPatch,
    flags: str,
    precision: str,
) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)  # it would hide what the file tells
    monkeypatch.setattr(backend.Path, "read_text", lambda path, encoding: f"flags : fpu {flags}")
    double_config["optimization"] = {"execution_accelerators": OPENVINO}
    load_model(double_graph, double_config)
    (labels,) = pb_utils.published
    assert (labels["provider"], labels["precision"]) == ("OpenVINOExecutionProvider", precision)
    assert ("avx512_bf16" in labels["reason"]) == (precision == "fp32")
    assert len(pb_utils.warnings) == (precision == "fp32")


@pytest.mark.parametrize("how", ["absent", "dropped", "raises"])
def test_the_cpu_provider_takes_over_and_says_why(
    load_model: Callable[..., Any],
    double_graph: Any,
    double_config: Any,
    pb_utils: Any,
    backend: Any,
    request_class: Any,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    opened = backend.ort.InferenceSession

    def open_session(path: str, options: Any, providers: list[str], **kwargs: Any) -> Any:
        if providers == ["OpenVINOExecutionProvider"] and how == "raises":
            raise RuntimeError("no such device")
        return opened(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(backend.ort, "InferenceSession", open_session)
    if how == "absent":
        monkeypatch.setattr(backend.ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    double_config["optimization"] = {"execution_accelerators": OPENVINO}
    instance = load_model(double_graph, double_config)
    (labels,) = pb_utils.published
    assert (labels["provider"], labels["precision"]) == ("CPUExecutionProvider", "fp32")
    expected = {"absent": "has only CPUExecutionProvider", "dropped": "left it out", "raises": "no such device"}[how]
    assert expected in labels["reason"]
    assert any(expected in warning for warning in pb_utils.warnings)
    (response,) = instance.execute([request_class({"x": rows(1)})])
    np.testing.assert_array_equal(response.arrays()["y"], rows(2))


ON_GPU = {"model_instance_kind": "GPU", "model_instance_device_id": "1", "model_instance_name": "tiny_0_0"}
DEALT_OUT = {"model_instance_kind": "CPU", "model_instance_device_id": "0", "model_instance_name": "tiny_0_4"}


@pytest.fixture
def cuda(backend: Any, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Stand in for ONNX Runtime's CUDA provider: a session of the CPU says that it is one of CUDA.

    Returns:
        The provider's options of each session that is opened.
    """
    asked: list[dict[str, str]] = []
    opened = backend.ort.InferenceSession
    names = ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def open_session(
        path: str, options: Any, *, providers: list[str], provider_options: list[dict[str, str]], enable_fallback: int
    ) -> Any:
        session = opened(path, options, providers=["CPUExecutionProvider"])
        if providers == ["CUDAExecutionProvider"]:
            asked.extend(provider_options)
            session.get_providers = lambda: names
        return session

    monkeypatch.setattr(backend.ort, "InferenceSession", open_session)
    monkeypatch.setattr(backend.ort, "get_available_providers", lambda: names)
    return asked


def test_an_instance_of_kind_gpu_runs_on_the_gpu_that_triton_gave_it(
    load_model: Callable[..., Any],
    double_graph: Any,
    double_config: Any,
    pb_utils: Any,
    request_class: Any,
    cuda: list[dict[str, str]],
) -> None:
    instance = load_model(double_graph, double_config, ON_GPU)
    assert [(options["device_id"], options["use_tf32"]) for options in cuda] == [("1", "0")]
    (labels,) = pb_utils.published
    assert (labels["provider"], labels["precision"]) == ("CUDAExecutionProvider", "fp32")
    first, second = instance.execute([request_class({"x": rows(1)}), request_class({"x": rows(2, 3)})])
    np.testing.assert_array_equal(first.arrays()["y"], rows(2))
    np.testing.assert_array_equal(second.arrays()["y"], rows(4, 6))


@pytest.mark.parametrize(("gpus", "expected"), [(None, "0"), ("2", "2"), ("1,3,5", "3")])
def test_instances_are_dealt_out_to_the_gpus_of_the_configuration(
    load_model: Callable[..., Any],
    double_graph: Any,
    double_config: Any,
    pb_utils: Any,
    cuda: list[dict[str, str]],
    gpus: str | None,
    expected: str,
) -> None:
    texts = {"execution": "cuda-fp16", **({"gpus": gpus} if gpus else {})}
    double_config["parameters"] = {key: {"string_value": text} for key, text in texts.items()}
    load_model(double_graph, double_config, DEALT_OUT)
    assert [options["device_id"] for options in cuda] == [expected]
    assert pb_utils.published[0]["precision"] == "fp16"


def test_the_numbers_of_the_cpp_backend_become_the_names_of_the_provider(
    load_model: Callable[..., Any], double_graph: Any, double_config: Any, cuda: list[dict[str, str]]
) -> None:
    texts = {"gpu_mem_limit": "2147483648", "arena_extend_strategy": "0", "cudnn_conv_algo_search": "2"}
    double_config["parameters"] = {key: {"string_value": text} for key, text in texts.items()}
    load_model(double_graph, double_config, ON_GPU)
    (options,) = cuda
    assert options["gpu_mem_limit"] == "2147483648"
    assert options["arena_extend_strategy"] == "kNextPowerOfTwo"
    assert options["cudnn_conv_algo_search"] == "DEFAULT"


@pytest.mark.parametrize(
    ("key", "value"), [("arena_extend_strategy", "2"), ("cudnn_conv_algo_search", "FAST"), ("gpu_mem_limit", "2 GB")]
)
def test_initialize_names_a_bad_parameter_of_the_gpu(
    load_model: Callable[..., Any], double_graph: Any, double_config: Any, pb_utils: Any, key: str, value: str
) -> None:
    double_config["parameters"] = {key: {"string_value": value}}
    with pytest.raises(pb_utils.TritonModelException, match=f"parameter {key} is '{value}'"):
        load_model(double_graph, double_config)


@pytest.mark.parametrize("asker", ["kind", "device"])
def test_nothing_takes_the_place_of_a_gpu_that_was_asked_for(
    load_model: Callable[..., Any],
    double_graph: Any,
    double_config: Any,
    pb_utils: Any,
    backend: Any,
    monkeypatch: pytest.MonkeyPatch,
    asker: str,
) -> None:
    monkeypatch.setattr(backend.ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(backend, "read_gpus", lambda: ["NVIDIA A10"])
    texts = {"execution": "cuda-fp16", "device": "cuda", "gpus": "1"} if asker == "device" else {}
    double_config["parameters"] = {key: {"string_value": text} for key, text in texts.items()}
    expected = (
        r"is to run on GPU 1 and cannot: this onnxruntime has only CPUExecutionProvider\. NVIDIA GPUs seen: NVIDIA A10"
        r"\. .*pip install 'lychee-rerank-server\[gpu\]'\. `lychee load --device cpu`"
    )
    with pytest.raises(pb_utils.TritonModelException, match=expected):
        load_model(double_graph, double_config, ON_GPU if asker == "kind" else DEALT_OUT)


def test_a_gpu_that_was_only_faster_gives_way_to_the_cpu_and_says_why(
    load_model: Callable[..., Any],
    double_graph: Any,
    double_config: Any,
    pb_utils: Any,
    backend: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backend.ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    double_config["parameters"] = {"execution": {"string_value": "cuda-tf32"}}
    load_model(double_graph, double_config, DEALT_OUT)
    (labels,) = pb_utils.published
    assert (labels["provider"], labels["precision"]) == ("CPUExecutionProvider", "fp32")
    assert "CUDAExecutionProvider is not usable: this onnxruntime has only" in labels["reason"]


@pytest.mark.parametrize(("name", "warnings"), [("cuda", 0), ("tensorrt", 1)])
def test_no_accelerator_changes_the_types_of_a_file_on_a_gpu(
    load_model: Callable[..., Any],
    double_graph: Any,
    double_config: Any,
    pb_utils: Any,
    cuda: list[dict[str, str]],
    name: str,
    warnings: int,
) -> None:
    double_config["optimization"] = {"execution_accelerators": {"gpu_execution_accelerator": [{"name": name}]}}
    load_model(double_graph, double_config, ON_GPU)
    assert len(cuda) == 1
    assert len(pb_utils.warnings) == warnings
    assert all("is ignored: CUDA's own kernels run the model" in warning for warning in pb_utils.warnings)
