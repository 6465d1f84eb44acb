"""Replaying golden pairs on a repository of small hand-written graphs that compute what the client's fake computes."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lychee_export.verification.reference as reference_module
import numpy as np
import onnx
import pytest
from fakes.dual_encoder import EMBEDDING_DIM, LOGIT_SCALE, VOCABULARY_SIZE, FakeTransport
from google.protobuf import text_format
from lychee_client import Image, LycheeClient, ModelNotReadyError, RequestRejectedError
from lychee_client.cli import add_commands, app
from lychee_client.manifest import GoldenInput, GoldenPair
from lychee_client.transports.base import ControlRequest, InferRequest
from lychee_export.contract.signature import SCORE_OUTPUTS, Axis, ModelSignature, TensorSpec
from lychee_export.errors import ValidationError
from lychee_export.families import Reference
from lychee_export.repository.assets import CLIENT_ASSETS, build_client_assets
from lychee_export.repository.triton_config import model_config
from lychee_export.verification.artifacts import check_artifacts
from lychee_export.verification.in_process import (
    InProcessTransport,
    check_golden_pairs_in_process,
    in_process_client,
)
from onnx import numpy_helper, parser
from PIL import Image as PilImage
from tritonclient.grpc.model_config_pb2 import ModelConfig
from typer.testing import CliRunner, Result

LENGTH = Axis("sequence_length", (16, 32, 64))
IDS = TensorSpec("input_ids", "int64", (LENGTH,))
MASK = TensorSpec("attention_mask", "int64", (LENGTH,))
PIXELS = TensorSpec("pixel_values", "uint8", (3, 224, 224))
QUERY, TEXT, IMAGE = (
    TensorSpec(f"{name}_embedding", "float32", (EMBEDDING_DIM,)) for name in ("query", "text", "image")
)
TEXT_ENCODER = ModelSignature("text_encoder", (IDS, MASK), (TEXT,), 4, encoder=True)
VISION_ENCODER = ModelSignature("vision_encoder", (PIXELS,), (IMAGE,), 2, encoder=True)
TEXT_HEAD = ModelSignature("scoring_head_text", (QUERY, TEXT), SCORE_OUTPUTS, 4)
IMAGE_HEAD = ModelSignature("scoring_head_image", (QUERY, IMAGE), SCORE_OUTPUTS, 2)
MODELS = (
    TEXT_ENCODER,
    VISION_ENCODER,
    TEXT_HEAD,
    IMAGE_HEAD,
    ModelSignature("rerank_text", (QUERY, IDS, MASK), SCORE_OUTPUTS, 4, steps=(TEXT_ENCODER, TEXT_HEAD)),
    ModelSignature("rerank_image", (QUERY, PIXELS), SCORE_OUTPUTS, 2, steps=(VISION_ENCODER, IMAGE_HEAD)),
)
HEADER = '<ir_version: 10, opset_import: ["" : 18]>'
TEXT_GRAPH = f"""{HEADER} text_encoder
(int64[batch_size, sequence_length] input_ids, int64[batch_size, sequence_length] attention_mask)
=> (float[batch_size, 24] text_embedding) <int64[1] one = {{1}}, int64[1] last = {{2}}> {{
    rows = Gather(table, input_ids)
    mask = Cast<to = 1>(attention_mask)
    wide = Unsqueeze(mask, last)
    kept = Mul(rows, wide)
    total = ReduceSum<keepdims = 0>(kept, one)
    norm = ReduceL2<keepdims = 1>(total, one)
    text_embedding = Div(total, norm)
}}"""
VISION_GRAPH = f"""{HEADER} vision_encoder (uint8[batch_size, 3, 224, 224] pixel_values)
=> (float[batch_size, 24] image_embedding) <int64[2] sides = {{2, 3}}, int64[1] one = {{1}}, float white = {{255.0}},
float grey = {{0.5}}> {{
    pixels = Cast<to = 1>(pixel_values)
    means = ReduceMean<keepdims = 0>(pixels, sides)
    bright = Div(means, white)
    centred = Sub(bright, grey)
    colour = MatMul(centred, table)
    total = Add(colour, bias)
    norm = ReduceL2<keepdims = 1>(total, one)
    image_embedding = Div(total, norm)
}}"""
HEAD_GRAPH = f"""{HEADER} head (float[batch_size, 24] query_embedding, float[batch_size, 24] document_embedding)
=> (float[batch_size, 1] relevance_score, float[batch_size, 1] logits)
<int64[1] one = {{1}}, float scale = {{{LOGIT_SCALE}}}> {{
    products = Mul(query_embedding, document_embedding)
    cosines = ReduceSum<keepdims = 1>(products, one)
    logits = Mul(cosines, scale)
    relevance_score = Sigmoid(logits)
}}"""


def make_model(graph: str, **constants: np.ndarray[Any, Any]) -> onnx.ModelProto:
    model = parser.parse_model(graph)
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    onnx.checker.check_model(model)
    return model


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    PilImage.new("RGB", (40, 30), colour).save(buffer, "PNG")
    return buffer.getvalue()


def ask_fake(output: str) -> str:
    request = InferRequest("client_assets", {}, (output,))
    return bytes(FakeTransport().send(request, None).result().outputs[output].item()).decode()


PAIRS = (("red car", {"text": "red car"}), ("red car", {"text": "蓝色的船"}), ("red", {"image": "red"}))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the repository, golden pairs scored by the client's fake."""
    folder = tmp_path_factory.mktemp("models")
    table = np.random.default_rng(0).standard_normal((VOCABULARY_SIZE, EMBEDDING_DIM))
    colours = np.random.default_rng(1).standard_normal((4, EMBEDDING_DIM))
    graphs = {
        "text_encoder": make_model(TEXT_GRAPH, table=table),
        "vision_encoder": make_model(VISION_GRAPH, table=colours[:3], bias=colours[3]),
        "scoring_head_text": make_model(HEAD_GRAPH.replace("document_embedding", "text_embedding")),
        "scoring_head_image": make_model(HEAD_GRAPH.replace("document_embedding", "image_embedding")),
    }
    artifacts = {}
    for signature in MODELS:
        (folder / signature.name / "1").mkdir(parents=True)
        (folder / signature.name / "config.pbtxt").write_text(model_config(signature, "cpu"))
        if signature.name in graphs:
            content = graphs[signature.name].SerializeToString()
            (folder / signature.name / "1" / "model.onnx").write_bytes(content)
            artifacts[f"{signature.name}/model.onnx"] = hashlib.sha256(content).hexdigest()
    manifest = json.loads(ask_fake("manifest"))
    manifest["artifacts"] |= artifacts
    manifest["max_batch_size"] = {signature.name: signature.max_batch_size for signature in MODELS}
    with LycheeClient(transport=FakeTransport()) as client:
        manifest["golden_pairs"]["pairs"] = [golden_pair(client, query, document) for query, document in PAIRS]
    write_assets(folder, manifest)
    return folder


def golden_pair(client: LycheeClient, query: str, document: dict[str, str]) -> dict[str, Any]:
    content, part = (
        ({"image_png_base64": base64.b64encode(png(colour)).decode()}, Image.from_bytes(png(colour)))
        if (colour := document.get("image"))
        else (document, document["text"])
    )
    return {"query": {"text": query}, "document": content, "relevance_score": client.score(query, part)}


def write_assets(folder: Path, manifest: dict[str, Any]) -> None:
    version = folder / "client_assets" / "1"
    version.mkdir(parents=True, exist_ok=True)
    assets = build_client_assets(json.dumps(manifest), ask_fake("tokenizer"))
    (version / "model.onnx").write_bytes(assets.SerializeToString())
    (folder / "client_assets" / "config.pbtxt").write_text(model_config(CLIENT_ASSETS, "cpu"))


def read_manifest(folder: Path) -> dict[str, Any]:
    request = InferRequest("client_assets", {}, ("manifest",))
    content = InProcessTransport(folder).send(request, None).result().outputs["manifest"].item()
    manifest: dict[str, Any] = json.loads(content)
    return manifest


@pytest.fixture
def models(exported: Path, tmp_path: Path) -> Path:
    """Return a copy that a test may spoil."""
    folder = tmp_path / "models"
    for path in exported.rglob("*"):
        if path.is_file():
            target = folder / path.relative_to(exported)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
        else:
            (folder / path.relative_to(exported)).mkdir(parents=True, exist_ok=True)
    return folder


# The transport.


def test_in_process_scores_equal_those_of_another_server(exported: Path) -> None:
    report = check_golden_pairs_in_process(exported)
    assert len(report.pairs) == 3
    assert report.max_abs_error < 1e-6
    assert len({round(pair.measured, 3) for pair in report.pairs}) == 3


def test_many_documents_are_batched_as_on_a_server(exported: Path) -> None:
    documents = [f"document {number}" for number in range(9)] + [
        Image.from_bytes(png(name)) for name in ("red", "blue")
    ]
    with in_process_client(exported) as client, LycheeClient(transport=FakeTransport()) as other:
        here, there = client.rerank("red car", documents), other.rerank("red car", documents)
    assert not here.errors
    assert [result.index for result in here.results] == [result.index for result in there.results]
    assert [result.relevance_score for result in here.results] == pytest.approx(
        [result.relevance_score for result in there.results], abs=1e-6
    )


def test_steps_are_followed_by_their_maps_and_not_by_names(models: Path) -> None:
    path = models / "rerank_text" / "config.pbtxt"
    config = text_format.Parse(path.read_text(), ModelConfig())
    encoder, head = config.ensemble_scheduling.step
    encoder.output_map["text_embedding"] = "renamed"
    head.input_map["text_embedding"] = "renamed"
    rng = np.random.default_rng(0)
    ids = rng.integers(4, 100, (2, 16))
    query = rng.standard_normal((2, EMBEDDING_DIM)).astype(np.float32)
    inputs = {"query_embedding": query, "input_ids": ids, "attention_mask": np.ones_like(ids)}

    def score() -> np.ndarray:
        request = InferRequest("rerank_text", inputs, ("relevance_score",))
        answer: np.ndarray = InProcessTransport(models).send(request, None).result().outputs["relevance_score"]
        return answer

    before = score()
    path.write_text(text_format.MessageToString(config))
    np.testing.assert_array_equal(score(), before)
    head.input_map["text_embedding"] = "query_embedding"
    path.write_text(text_format.MessageToString(config))
    assert np.abs(score() - before).max() > 0.1


def test_the_newest_version_is_served(models: Path) -> None:
    other = make_model(HEAD_GRAPH.replace("document_embedding", "text_embedding").replace("{4.0}", "{1.0}"))
    for version in ("9", "10"):
        (models / "scoring_head_text" / version).mkdir()
    old = (models / "scoring_head_text" / "1" / "model.onnx").read_bytes()
    (models / "scoring_head_text" / "9" / "model.onnx").write_bytes(old)
    (models / "scoring_head_text" / "10" / "model.onnx").write_bytes(other.SerializeToString())
    assert not check_golden_pairs_in_process(models).passed


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"input_ids": (1, 16)}, r"the inputs are \['input_ids'\]"),
        ({"input_ids": (5, 16), "attention_mask": (5, 16)}, "at most 4"),
        ({"input_ids": (2, 16), "attention_mask": (1, 16)}, "the same of all"),
        ({"input_ids": (2, 16, 1), "attention_mask": (2, 16)}, r"input_ids has the shape \(16, 1\)"),
    ],
)
def test_requests_that_a_server_refuses_are_refused(
    exported: Path, inputs: dict[str, tuple[int, ...]], message: str
) -> None:
    tensors = {name: np.ones(shape, np.int64) for name, shape in inputs.items()}
    future = InProcessTransport(exported).send(InferRequest("text_encoder", tensors, ("text_embedding",)), None)
    with pytest.raises(RequestRejectedError, match=message):
        future.result()


def test_an_unknown_model_is_not_ready_and_questions_are_answered(exported: Path) -> None:
    transport = InProcessTransport(exported)
    with pytest.raises(ModelNotReadyError, match="nothing"):
        transport.send(InferRequest("nothing", {}, ()), None).result()
    assert transport.send(ControlRequest("ready"), None).result()["ready"] is True


def test_only_the_tensors_that_were_asked_for_come_back(exported: Path) -> None:
    answer = InProcessTransport(exported).send(InferRequest("client_assets", {}, ("tokenizer",)), None).result()
    assert list(answer.outputs) == ["tokenizer"]


def test_a_file_that_is_no_model_is_a_repository_error(models: Path) -> None:
    (models / "text_encoder" / "1" / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ValidationError, match=r"text_encoder cannot be loaded"):
        check_golden_pairs_in_process(models)


def test_a_model_outside_the_version_of_the_manifest_is_told(models: Path) -> None:
    write_assets(models, {**read_manifest(models), "version": 7})
    with pytest.raises(ValidationError, match=r"lies in the folder 1, and the manifest names version 7"):
        check_golden_pairs_in_process(models)


# The files.


def test_changed_and_missing_files_are_named(models: Path) -> None:
    artifacts = read_manifest(models)["artifacts"]
    assert check_artifacts(models, artifacts) == []
    (models / "text_encoder" / "1" / "model.onnx").write_bytes(b"changed")
    (models / "vision_encoder" / "1" / "model.onnx").unlink()
    changed, missing = check_artifacts(models, artifacts)
    assert "text_encoder/1/model.onnx has SHA-256" in changed
    assert "vision_encoder/model.onnx cannot be read" in missing


# The command.


@pytest.fixture(scope="module")
def verify() -> Callable[..., Result]:
    """Run the command."""
    if not any(command.name == "verify" for command in app.registered_commands):
        add_commands(app)
    return lambda *arguments: CliRunner().invoke(app, ["verify", *map(str, arguments)])


def test_all_pairs_agree(verify: Callable[..., Result], exported: Path) -> None:
    result = verify("--repository", exported)
    assert result.exit_code == 0, result.output
    assert "3 of 3 pairs agree" in result.output
    assert "red car -> 蓝色的船" in result.output
    assert "red -> [image]" in result.output
    assert "reference" not in result.output


def test_a_score_that_is_off_fails(verify: Callable[..., Result], models: Path) -> None:
    manifest = read_manifest(models)
    manifest["golden_pairs"]["pairs"][1]["relevance_score"] += 0.021
    write_assets(models, manifest)
    result = verify("--repository", models, "--json")
    assert result.exit_code == 1
    content = json.loads(result.stdout)
    assert [pair["ok"] for pair in content["pairs"]] == [True, False, True]
    assert content["max_difference"] == pytest.approx(0.021, abs=1e-5)
    assert content["passed"] is False
    assert content["pairs"][0]["reference"] is None


def test_a_changed_file_fails_although_the_scores_agree(verify: Callable[..., Result], models: Path) -> None:
    path = models / "text_encoder" / "1" / "model.onnx"
    model = onnx.load(path)
    model.producer_name = "somebody else"
    onnx.save(model, path)
    result = verify("--repository", models)
    assert result.exit_code == 1
    assert "3 of 3 pairs agree" in result.output
    assert "1 files differ" in result.output


def test_a_manifest_without_pairs_verifies_nothing(verify: Callable[..., Result], models: Path) -> None:
    manifest = read_manifest(models)
    manifest["golden_pairs"]["pairs"] = []
    write_assets(models, manifest)
    result = verify("--repository", models)
    assert result.exit_code == 1
    assert "nothing was verified" in result.output


@pytest.mark.parametrize("move", [0.0, 0.021])
def test_reference_scores_are_a_third_column(
    verify: Callable[..., Result], exported: Path, monkeypatch: pytest.MonkeyPatch, move: float
) -> None:
    scores = [pair["relevance_score"] for pair in read_manifest(exported)["golden_pairs"]["pairs"]]
    texts = [
        GoldenPair(GoldenInput(query), GoldenInput(document["text"]), score + move)
        for (query, document), score in zip(PAIRS, scores, strict=True)
        if "text" in document
    ]
    image = GoldenPair(GoldenInput("red"), GoldenInput(image_png=png("red")), scores[2])
    monkeypatch.setattr(reference_module, "load_checkpoint", make_loader([image, *texts]))
    result = verify("--repository", exported, "--reference", "fake", "--json")
    assert result.exit_code == (1 if move else 0), result.output
    content = json.loads(result.stdout)
    assert [pair["reference"] for pair in content["pairs"]] == pytest.approx(
        [scores[0] + move, scores[1] + move, scores[2]]
    )
    assert "reference" in verify("--repository", exported, "--reference", "fake").output


def test_another_checkpoint_is_no_reference(
    verify: Callable[..., Result], exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference_module, "load_checkpoint", make_loader([], revision="other"))
    result = verify("--repository", exported, "--reference", "fake")
    assert result.exit_code == 1
    assert "name the checkpoint that was exported" in result.stderr
    monkeypatch.setattr(reference_module, "load_checkpoint", make_loader([]))
    assert "other golden pairs" in verify("--repository", exported, "--reference", "fake").stderr


def make_loader(pairs: list[GoldenPair], revision: str = "000000000000") -> Callable[..., Any]:
    """Return what stands in for load_checkpoint: a checkpoint with these golden pairs."""

    class Loaded:
        card = SimpleNamespace(spec=SimpleNamespace(family="fake", revision=revision))

        @staticmethod
        def make_reference() -> Reference:
            return Reference({}, tuple(pairs))

    return lambda *_: Loaded()


def test_usage_errors_have_their_own_exit_status(verify: Callable[..., Result], tmp_path: Path) -> None:
    assert verify("--repository", tmp_path).exit_code == 2
    assert verify("--repository", tmp_path, "--url", "localhost:1").exit_code == 2


def test_the_repository_comes_from_the_environment_unless_a_server_is_named(
    verify: Callable[..., Result], exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LYCHEE_REPOSITORY", str(exported))
    assert verify().exit_code == 0
    result = verify("--url", "localhost:1")
    assert result.exit_code == 1
    assert result.stderr.startswith("lychee: ")


def test_a_broken_repository_is_a_failure_with_a_reason(verify: Callable[..., Result], models: Path) -> None:
    (models / "text_encoder" / "config.pbtxt").write_text("no configuration")
    result = verify("--repository", models)
    assert result.exit_code == 1
    assert "config.pbtxt is not a Triton model configuration" in result.stderr


def test_a_long_text_is_shortened(exported: Path, models: Path, verify: Callable[..., Result]) -> None:
    manifest = read_manifest(exported)
    manifest["golden_pairs"]["pairs"][0]["document"] = {"text": "x" * 41}
    write_assets(models, manifest)
    result = verify("--repository", models)
    assert f"red car -> {'x' * 37}...\n" in result.output
