"""``client_assets``: a model without inputs whose string outputs are the manifest and the tokenizer."""

from __future__ import annotations

from pathlib import Path

import onnx
from lychee_client.manifest import Manifest, write_manifest
from lychee_client.repository import ASSETS_MODEL, MANIFEST_FILENAME, MODEL_FILENAME
from onnx import TensorProto, helper

from lychee_export.contract.signature import ModelSignature, TensorSpec
from lychee_export.onnx.export import OPSET_VERSION

__all__ = ["CLIENT_ASSETS", "build_client_assets", "write_assets"]

CLIENT_ASSETS = ModelSignature(
    ASSETS_MODEL,
    inputs=(),
    outputs=(TensorSpec("manifest", "string", (1,)), TensorSpec("tokenizer", "string", (1,))),
    max_batch_size=0,
)

_IR_VERSION = 10


def build_client_assets(manifest_json: str, tokenizer_json: str) -> onnx.ModelProto:
    """Pack what the client needs into a constant ONNX model."""
    texts = {"manifest": manifest_json, "tokenizer": tokenizer_json}
    nodes, outputs = [], []
    for spec in CLIENT_ASSETS.outputs:
        value = helper.make_tensor(f"{spec.name}_value", TensorProto.STRING, [1], [texts[spec.name].encode()])  # type: ignore[list-item]
        nodes.append(helper.make_node("Constant", [], [spec.name], value=value))
        outputs.append(helper.make_tensor_value_info(spec.name, TensorProto.STRING, [1]))
    graph = helper.make_graph(nodes, CLIENT_ASSETS.name, [], outputs)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET_VERSION)], ir_version=_IR_VERSION, producer_name="lychee"
    )


def write_assets(folder: Path, manifest: Manifest, tokenizer_json: str) -> tuple[Path, Path]:
    """Write that model, and the manifest beside it for those who read files; return the paths of both."""
    manifest_json = write_manifest(manifest)
    model, path = folder / MODEL_FILENAME, folder / MANIFEST_FILENAME
    model.write_bytes(build_client_assets(manifest_json, tokenizer_json).SerializeToString(deterministic=True))
    path.write_text(manifest_json, encoding="utf-8")
    return model, path
