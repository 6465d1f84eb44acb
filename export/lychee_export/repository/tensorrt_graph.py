"""Whether TensorRT can build an ONNX graph with the signature's profiles: what can be known without a GPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import onnx
from onnx import TensorProto

from lychee_export.contract.signature import BATCH_AXIS, ModelSignature
from lychee_export.errors import ValidationError
from lychee_export.onnx.byte_inputs import byte_inputs
from lychee_export.repository.tensorrt import OptimizationProfile, profiles

__all__ = ["MAX_OPSET_VERSION", "check_graph"]

MAX_OPSET_VERSION = 20
"""Newest operator set that TensorRT 10 reads.

Source: https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md for TensorRT 10.0, as the next two tables.
"""

_UNSUPPORTED_NAMES = """
    AffineGrid Bernoulli BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor BlackmanWindow CenterCropPad Col2Im
    Compress ConcatFromSequence ConvInteger DFT Det DynamicQuantizeLinear HammingWindow HannWindow ImageDecoder
    MatMulInteger MaxRoiPool MaxUnpool MelWeightMatrix Multinomial NegativeLogLikelihoodLoss Optional OptionalGetElement
    OptionalHasElement QLinearConv QLinearMatMul RegexFullMatch STFT SequenceAt SequenceConstruct SequenceEmpty
    SequenceErase SequenceInsert SequenceLength SequenceMap SoftmaxCrossEntropyLoss SplitToSequence StringConcat
    StringNormalizer StringSplit TfIdfVectorizer Unique
"""
_UNSUPPORTED = frozenset(_UNSUPPORTED_NAMES.split())

_CONSTANT_INPUTS: Mapping[str, int] = {
    "CumSum": 1,
    "OneHot": 1,
    "Pad": 3,
    "ReduceL1": 1,
    "ReduceL2": 1,
    "ReduceLogSum": 1,
    "ReduceLogSumExp": 1,
    "ReduceMax": 1,
    "ReduceMean": 1,
    "ReduceMin": 1,
    "ReduceProd": 1,
    "ReduceSum": 1,
    "ReduceSumSquare": 1,
    "Slice": 3,
    "Squeeze": 1,
    "Unsqueeze": 1,
}
"""Position of the input that must be a constant: axes, or OneHot's depth."""

_STANDARD_DOMAINS = ("", "ai.onnx")


def check_graph(model: onnx.ModelProto, signature: ModelSignature) -> None:
    """Check an encoder's graph against what TensorRT reads, and the profiles against the graph.

    Whether TensorRT computes the right values, only a GPU can tell: `lychee verify` against the server does.

    Args:
        model: The ONNX model; the values of its weights are not needed.
        signature: The model's tensors and limits.

    Raises:
        ValidationError: TensorRT would refuse the graph or a shape; the message names all reasons.
    """
    problems = [*_graph_problems(model), *_profile_problems(model, profiles(signature))]
    if problems:
        raise ValidationError(f"{signature.name}: TensorRT cannot run it: {'; '.join(problems)}")


def _graph_problems(model: onnx.ModelProto) -> Iterator[str]:
    for opset in model.opset_import:
        if opset.domain in _STANDARD_DOMAINS and opset.version > MAX_OPSET_VERSION:
            yield f"opset {opset.version} is above {MAX_OPSET_VERSION}"
    nodes = list(_all_nodes(model.graph.node))
    foreign = {f"{node.domain}.{node.op_type}" for node in nodes if node.domain not in _STANDARD_DOMAINS}
    functions = {f"{function.domain}.{function.name}" for function in model.functions}
    unknown = (foreign - functions) | {node.op_type for node in nodes if not node.domain} & _UNSUPPORTED
    if unknown:
        yield f"it has no operator {', '.join(sorted(unknown))}"
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {name for node in nodes if node.op_type == "Constant" for name in node.output}
    for node in nodes:
        position = _CONSTANT_INPUTS.get(node.op_type)
        if position is not None and len(node.input) > position and node.input[position] not in {"", *constants}:
            yield f"input {position} of {node.op_type} ({node.name}) must be a constant"
    yield from _byte_problems(model, nodes)


def _byte_problems(model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto]) -> Iterator[str]:
    """UINT8 is for the network's inputs and outputs alone: the first thing that happens to it is a cast."""
    bytes_in = set(byte_inputs(model))
    for node in nodes:
        for name in bytes_in.intersection(node.input):
            if node.op_type != "Cast":
                yield f"{name} is uint8 and goes into {node.op_type}, expected Cast"
        casts_to_bytes = any(item.name == "to" and item.i == TensorProto.UINT8 for item in node.attribute)
        if node.op_type == "Cast" and casts_to_bytes:
            yield f"{node.name} casts to uint8, which exists only as an input"


def _profile_problems(model: onnx.ModelProto, ranges: tuple[OptimizationProfile, ...]) -> Iterator[str]:
    axes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in model.graph.input
    }
    for number, profile in enumerate(ranges):
        for kind, shapes in (("min", profile.minimum), ("opt", profile.optimum), ("max", profile.maximum)):
            if set(shapes) != set(axes):
                yield f"profile {number} is for the inputs {sorted(shapes)}, the graph has {sorted(axes)}"
                return
            for name, shape in shapes.items():
                if not _fits(shape, axes[name]):
                    yield f"profile {number}: {kind} shape {shape} of {name} does not fit the graph's {axes[name]}"
        for name, least in profile.minimum.items():
            sizes = zip(least, profile.optimum[name], profile.maximum[name], strict=True)
            if not all(low <= middle <= high for low, middle, high in sizes):
                yield f"profile {number}: {name} is not ascending from min over opt to max"


def _fits(shape: tuple[int, ...], axes: list[str | int]) -> bool:
    if len(shape) != len(axes) or axes[0] != BATCH_AXIS:
        return False
    return all(isinstance(axis, str) or axis == size for size, axis in zip(shape, axes, strict=True))


def _all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield the nodes and those of the branches and loops inside them."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _all_nodes(attribute.g.node)
