from dataclasses import replace

from google.protobuf import text_format
from lychee_export.contract.signature import Axis, ModelSignature, TensorSpec
from lychee_export.repository.triton_config import Device, model_config
from tritonclient.grpc.model_config_pb2 import TYPE_INT64, ModelConfig

IDS = TensorSpec("input_ids", "int64", (Axis("sequence_length", (64, 512)),), maximum=99)
EMBEDDING = TensorSpec("text_embedding", "float32", (384,))
SCORE = TensorSpec("relevance_score", "float32", (1,))
ENCODER = ModelSignature("text_encoder", (IDS,), (EMBEDDING,), 32, encoder=True, max_run_elements=2048)
HEAD = ModelSignature("scoring_head_text", (EMBEDDING,), (SCORE,), 32)
ENSEMBLE = ModelSignature("rerank_text", (IDS,), (SCORE,), 16, steps=(ENCODER, HEAD))


def parse(signature: ModelSignature, device: Device = "openvino") -> ModelConfig:
    return text_format.Parse(model_config(signature, device), ModelConfig())


def test_encoder_is_batched_and_accelerated() -> None:
    config = parse(ENCODER)
    assert (config.backend, config.max_batch_size) == ("onnxruntime", 32)
    assert (config.input[0].name, config.input[0].data_type, list(config.input[0].dims)) == (
        "input_ids",
        TYPE_INT64,
        [-1],
    )
    assert config.HasField("dynamic_batching")
    assert not config.HasField("response_cache")  # it stores failed answers
    accelerator = config.optimization.execution_accelerators.cpu_execution_accelerator[0]
    assert (accelerator.name, dict(accelerator.parameters)) == ("openvino", {"precision": "bf16"})
    assert config.parameters["maximum.input_ids"].string_value == "99"
    assert config.parameters["maximum.sequence_length"].string_value == "512"
    assert config.parameters["max_run_elements"].string_value == "2048"


def test_dynamic_batching_has_no_queue_policy_that_makes_triton_stall() -> None:
    assert parse(ENCODER).dynamic_batching.ByteSize() == 0


def test_plain_variant_differs_in_the_accelerator_alone() -> None:
    accelerated, plain = parse(ENCODER), parse(ENCODER, "cpu")
    accelerated.ClearField("optimization")
    assert accelerated == plain


def test_head_is_not_accelerated() -> None:
    config = parse(HEAD)
    assert not config.HasField("optimization")
    assert config.parameters["intra_op_thread_count"].string_value == "1"


def test_ensemble_has_no_batching_of_its_own_and_connects_by_name() -> None:
    config = parse(ENSEMBLE)
    assert config.platform == "ensemble"
    assert not config.HasField("dynamic_batching")
    steps = config.ensemble_scheduling.step
    assert [step.model_name for step in steps] == ["text_encoder", "scoring_head_text"]
    assert dict(steps[0].output_map) == dict(steps[1].input_map) == {"text_embedding": "text_embedding"}


def test_step_whose_tensors_have_other_names_fills_every_input_and_gives_what_is_taken() -> None:
    other = replace(EMBEDDING, name="image_embedding")
    outputs = tuple(replace(SCORE, name=f"{modality}_relevance_score") for modality in ("text", "image"))
    heads = ModelSignature("scoring_heads", (EMBEDDING, other), outputs, 32)
    names = {"image_embedding": "text_embedding", "text_relevance_score": "relevance_score"}
    (step,) = parse(
        ModelSignature("scoring_head_text", (EMBEDDING,), (SCORE,), 32, steps=(heads,), names=names)
    ).ensemble_scheduling.step
    assert dict(step.input_map) == {"text_embedding": "text_embedding", "image_embedding": "text_embedding"}
    assert dict(step.output_map) == {"text_relevance_score": "relevance_score"}


def test_model_without_batch_axis_has_no_dynamic_batching() -> None:
    assert not parse(ModelSignature("constant", (), (SCORE,), 0)).HasField("dynamic_batching")
