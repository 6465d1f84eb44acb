"""The Qwen-VL exporter's torch modules against transformers, and proofs that the comparison can fail."""

import io
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints.exports import LIMITS
from checkpoints.qwen_vl_pairs import PAIRS, PAIRS_OF, SEVERAL_IMAGES_OF
from checkpoints.qwen_vl_reference import Batch, Part, QwenReranker
from lychee_client.manifest import PAGE, CheckpointLimits, GoldenInput, InstructionSpec, PatchSpec
from lychee_export.checkpoint.reading import Reading
from lychee_export.contract.limits import Limits
from lychee_export.errors import CheckpointError
from lychee_export.families import Checkpoint, load_checkpoint
from lychee_export.families.heads import LabelHead
from lychee_export.families.qwen_vl import text
from lychee_export.families.qwen_vl.images import ImageSettings
from lychee_export.families.qwen_vl.reference import Part as ExporterPart
from lychee_export.families.qwen_vl.reference import ReferenceModel
from lychee_export.families.qwen_vl.rows import make_processor
from lychee_export.families.template import templates
from msgspec import structs
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Qwen2_5_VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

EMBEDDING_ATOL = 1e-5
SCORE_ATOL = 1e-4
RERANKERS = sorted(PAIRS_OF)


def patch_spec(checkpoint: Checkpoint) -> PatchSpec:
    assert isinstance(checkpoint.card.spec.image, PatchSpec)
    return checkpoint.card.spec.image


def _pixels(checkpoint: Checkpoint) -> tuple[int, int]:
    spec = patch_spec(checkpoint)
    return spec.min_pixels, spec.max_pixels


class Loaded:
    """One checkpoint in the exporter's modules and in transformers."""

    def __init__(self, folder: Path) -> None:
        self.checkpoint: Checkpoint = load_checkpoint(str(folder), LIMITS)
        self.modules: dict[str, Any] = {piece.signature.name: piece.module for piece in self.checkpoint.pieces}
        spec = patch_spec(self.checkpoint)
        self.patch_bytes = spec.patch_bytes
        self.folder = folder
        self.reference = QwenReranker(folder, spec.min_pixels, spec.max_pixels)

    def run(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``image_embeds``, ``hidden`` and ``relevance_score`` of a batch."""
        pixel_values, grids = batch.pack_images(self.patch_bytes, LIMITS.max_images)
        with torch.no_grad():
            embeds = self.modules["vision_encoder"](pixel_values, grids)
            ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
            hidden = self.modules["text_encoder"](ids, mask, embeds, grids)
            score, _ = self.modules["scoring_head"](hidden)
        return embeds, hidden, score[:, 0]


@pytest.fixture(scope="module")
def load(checkpoint_folder: Callable[[str], Path]) -> Callable[[str], Loaded]:
    """Return a function from a builder's name to the loaded checkpoint."""
    loaded: dict[str, Loaded] = {}

    def load_once(name: str) -> Loaded:
        if name not in loaded:
            loaded[name] = Loaded(checkpoint_folder(name))
        return loaded[name]

    return load_once


def differences(loaded: Loaded, batch: Batch) -> tuple[float, float, float]:
    """Return the largest difference of embeddings, hidden states and scores from transformers."""
    return batch.compare(*loaded.run(batch))


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("name", RERANKERS)
def test_modules_equal_transformers_for_batches_of_one_to_seven(
    load: Callable[[str], Loaded], name: str, padding_side: str
) -> None:
    loaded, pairs = load(name), PAIRS_OF[name]
    batches = [pairs[7 - rows :] for rows in range(1, 8)] + (
        [SEVERAL_IMAGES_OF[name]] if name in SEVERAL_IMAGES_OF else []
    )
    for batch in (loaded.reference.run(pairs, padding_side) for pairs in batches):
        embeds, hidden, score = differences(loaded, batch)
        assert embeds <= EMBEDDING_ATOL
        assert hidden <= EMBEDDING_ATOL
        assert score <= SCORE_ATOL


@pytest.mark.parametrize("name", RERANKERS)
def test_scores_of_the_pairs_differ_widely(load: Callable[[str], Loaded], name: str) -> None:
    """Otherwise equal scores would say nothing."""
    assert float(load(name).reference.run(PAIRS_OF[name]).scores.std()) > 0.05


@pytest.mark.parametrize("name", RERANKERS)
def test_a_row_does_not_depend_on_its_padding_or_its_batch(load: Callable[[str], Loaded], name: str) -> None:
    loaded = load(name)
    together = loaded.run(loaded.reference.run(PAIRS_OF[name], "right"))[2]
    alone = [loaded.run(loaded.reference.run([pair]))[2] for pair in PAIRS_OF[name]]
    assert float((together - torch.cat(alone)).abs().max()) <= 1e-6


def test_windows_that_are_no_windows_show(load: Callable[[str], Loaded], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load("qwen2_5_vl")
    batch = loaded.reference.run(PAIRS)
    vision = loaded.modules["vision_encoder"]
    assert vision.full_attention == [False, True]
    monkeypatch.setattr(vision, "full_attention", [True, True])
    assert differences(loaded, batch)[0] > 10 * EMBEDDING_ATOL


def test_windows_of_another_size_show(load: Callable[[str], Loaded], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load("qwen2_5_vl")
    batch = loaded.reference.run(PAIRS)
    monkeypatch.setattr(loaded.modules["vision_encoder"], "blocks_per_window", 8)
    assert differences(loaded, batch)[0] > 10 * EMBEDDING_ATOL


@pytest.mark.parametrize("name", RERANKERS)
def test_positions_in_one_dimension_show(
    load: Callable[[str], Loaded], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    loaded = load(name)
    batch = loaded.reference.run(PAIRS_OF[name])

    def locate(is_image: Tensor, image_index: Tensor, valid: Tensor, image_grid_thw: Tensor) -> Tensor:
        return (valid.long().cumsum(1) - 1).clamp(min=0).expand(3, -1, -1)

    monkeypatch.setattr(loaded.modules["text_encoder"], "locate", locate)
    _, hidden, score = differences(loaded, batch)
    assert hidden > 10 * EMBEDDING_ATOL
    assert score > 10 * SCORE_ATOL


@pytest.mark.parametrize("name", RERANKERS)
def test_padding_that_is_not_masked_shows(
    load: Callable[[str], Loaded], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    loaded = load(name)
    batch = loaded.reference.run(PAIRS_OF[name], "left")
    see = text.see_causally
    monkeypatch.setattr(text, "see_causally", lambda valid: see(torch.ones_like(valid)))
    assert differences(loaded, batch)[2] > 10 * SCORE_ATOL


def test_missing_deepstack_shows(load: Callable[[str], Loaded], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load("qwen3_vl")
    batch = loaded.reference.run(PAIRS)
    monkeypatch.setattr(loaded.modules["text_encoder"], "num_deepstack", 0)
    assert differences(loaded, batch)[2] > 10 * SCORE_ATOL


def test_a_missing_position_table_shows(load: Callable[[str], Loaded], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load("qwen3_vl")
    batch = loaded.reference.run(PAIRS)
    monkeypatch.setitem(loaded.modules["vision_encoder"]._modules, "position_table", None)
    assert differences(loaded, batch)[0] > 10 * EMBEDDING_ATOL


def test_swapped_label_tokens_show(load: Callable[[str], Loaded], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load("qwen2_5_vl")
    batch = loaded.reference.run(PAIRS)
    yes, no = loaded.reference.tokenizer.convert_tokens_to_ids(["yes", "no"])
    weight = loaded.reference.model.lm_head.weight
    monkeypatch.setitem(loaded.modules, "scoring_head", LabelHead(weight, yes, no))
    assert differences(loaded, batch)[2] <= SCORE_ATOL
    monkeypatch.setitem(loaded.modules, "scoring_head", LabelHead(weight, no, yes))
    assert differences(loaded, batch)[2] > 10 * SCORE_ATOL


@pytest.mark.parametrize(
    ("published", "changed"), [("\n<Document>:", "<Document>:"), ("<Query>:", "<Query>: "), ('"yes" or "no"', "yes/no")]
)
def test_a_changed_prompt_shows(load: Callable[[str], Loaded], published: str, changed: str) -> None:
    loaded = load("qwen2_5_vl")
    reference = loaded.reference
    template = templates()["lychee_rerank_mm"]
    labels = tuple(reference.tokenizer.convert_tokens_to_ids(["yes", "no"]))
    spec = patch_spec(loaded.checkpoint)
    settings = _settings(min_pixels=spec.min_pixels, max_pixels=spec.max_pixels)
    processor = make_processor(Qwen2_5_VLProcessor, settings, reference.tokenizer)

    def difference(words: str) -> float:
        mutated = structs.replace(template, prompt=structs.replace(template.prompt, template=words))
        model = ReferenceModel(reference.model, processor, mutated, labels)  # type: ignore[arg-type]
        logits = [model.compute_logit(*(ExporterPart(part.text, part.image) for part in pair)) for pair in PAIRS[:3]]
        scores = torch.tensor(logits, dtype=torch.float64).sigmoid()
        return float((scores - reference.run(PAIRS[:3]).scores).abs().max())

    words = template.prompt.template
    assert published in words
    assert difference(words) <= SCORE_ATOL
    assert difference(words.replace(published, changed)) > SCORE_ATOL


@pytest.mark.parametrize("name", RERANKERS)
def test_prompts_are_the_published_ones(load: Callable[[str], Loaded], name: str) -> None:
    loaded = load(name)
    prompt, instruction = loaded.checkpoint.card.spec.prompt, loaded.checkpoint.card.spec.instruction
    assert prompt is not None
    assert prompt.template == loaded.reference.prompt
    assert prompt.suffix_token_ids == ((100,) if name == "jina_m0" else ())
    expected = loaded.reference.instruction
    assert instruction == (None if expected is None else InstructionSpec(expected))


@pytest.mark.parametrize("name", RERANKERS)
def test_golden_pairs_are_scored_as_by_transformers(load: Callable[[str], Loaded], name: str) -> None:
    loaded = load(name)
    reference = loaded.checkpoint.make_reference()
    assert 7 <= len(reference.golden_pairs) <= 10
    for pair in reference.golden_pairs:
        query, document = _part(pair.query), _part(pair.document)
        assert pair.relevance_score == pytest.approx(loaded.reference.score(query, document), abs=2e-6)
        assert max(len(png or b"") for png in (pair.document.image_png, pair.query.image_png)) < 17_000
    for signature in loaded.checkpoint.card.ensembles:
        assert len(reference.ensemble_rows[signature.name]["input_ids"]) >= 7


@pytest.mark.parametrize("name", RERANKERS)
def test_a_page_shows_what_the_limits_of_the_export_cost(load: Callable[[str], Loaded], name: str) -> None:
    loaded = load(name)
    reference = loaded.checkpoint.make_reference()
    page = reference.golden_pairs[-1]
    query, document = _part(page.query), _part(page.document)
    assert document.image is not None
    assert document.image.size == PAGE
    (note,) = reference.notes
    seen, own = (float(score) for score in re.findall(r"(?<= )0[.][0-9]{4}", note))
    limits = loaded.checkpoint.card.spec.checkpoint_limits
    assert limits is not None
    unreduced = QwenReranker(loaded.folder, patch_spec(loaded.checkpoint).min_pixels, limits.max_pixels)
    assert seen == pytest.approx(page.relevance_score, abs=1e-4)
    assert own == pytest.approx(unreduced.score(query, document), abs=1e-4)
    assert abs(own - seen) > 1e-3  # the resolution shows


def test_a_page_that_does_not_fit_is_told_and_left_out(checkpoint_folder: Callable[[str], Path]) -> None:
    checkpoint = load_checkpoint(str(checkpoint_folder("jina_m0")), Limits(max_tokens=384, max_img_size=560))
    reference = checkpoint.make_reference()
    assert PAGE not in [image.size for pair in reference.golden_pairs if (image := _part(pair.document).image)]
    assert "the longest sequence is 384: pages will be refused" in reference.notes[0]


def test_an_instruction_of_the_export_is_the_default_and_scores_the_golden_pairs(
    checkpoint_folder: Callable[[str], Path], load: Callable[[str], Loaded]
) -> None:
    folder = checkpoint_folder("qwen3_vl")
    checkpoint = load_checkpoint(str(folder), LIMITS, Reading(instruction="Find the same product."))
    assert checkpoint.card.spec.instruction == InstructionSpec("Find the same product.")
    reference = QwenReranker(folder, *_pixels(checkpoint))
    reference.instruction = "Find the same product."
    pairs = checkpoint.make_reference().golden_pairs
    for pair in pairs:
        expected = reference.score(_part(pair.query), _part(pair.document))
        assert pair.relevance_score == pytest.approx(expected, abs=2e-6)
    others = load("qwen3_vl").checkpoint.make_reference().golden_pairs
    moves = [abs(pair.relevance_score - other.relevance_score) for pair, other in zip(pairs, others, strict=True)]
    assert max(moves) > 1e-3
    with pytest.raises(CheckpointError, match=r"reads no instruction, got 'Judge\.'; leave --instruction out"):
        load_checkpoint(str(checkpoint_folder("jina_m0")), reading=Reading(instruction="Judge."), weights=False)


@pytest.mark.parametrize("name", RERANKERS)
def test_half_precision_keeps_the_scores(checkpoint_folder: Callable[[str], Path], name: str) -> None:
    loaded = Loaded(checkpoint_folder(name))
    batch = loaded.reference.run(PAIRS_OF[name])
    for model in ("vision_encoder", "text_encoder"):
        loaded.modules[model].half()
        assert loaded.modules[model].inverse_frequencies.dtype == torch.float32
    embeds, hidden, scores = loaded.run(batch)
    assert {embeds.dtype, hidden.dtype, scores.dtype} == {torch.float32}
    assert float((scores - batch.scores).abs().max()) <= 5e-3


def test_modules_share_the_parameters_of_the_model(load: Callable[[str], Loaded]) -> None:
    """A large model must not lie in memory twice; ``lm_head`` must not reach the text encoder's file."""
    loaded = load("qwen2_5_vl")
    names = dict(loaded.modules["text_encoder"].named_parameters())
    assert not any("lm_head" in name for name in names)
    copied = sum(buffer.numel() for module in loaded.modules.values() for buffer in module.buffers())
    config = loaded.reference.model.config
    patch_weight = config.vision_config.hidden_size * loaded.patch_bytes
    assert copied == patch_weight + config.text_config.hidden_size


def test_a_sharded_bfloat16_checkpoint_is_loaded_in_float32(
    checkpoint_folder: Callable[[str], Path], load: Callable[[str], Loaded]
) -> None:
    folder = checkpoint_folder("qwen2_5_vl")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    assert {value.dtype for path in shards for value in load_file(path).values()} == {torch.bfloat16}
    assert {value.dtype for value in load("qwen2_5_vl").modules["text_encoder"].parameters()} == {torch.float32}


@pytest.mark.parametrize("name", RERANKERS)
def test_modules_can_be_built_without_weights(checkpoint_folder: Callable[[str], Path], name: str) -> None:
    checkpoint = load_checkpoint(str(checkpoint_folder(name)), LIMITS, weights=False)
    assert all(value.is_meta for piece in checkpoint.pieces for value in piece.module.parameters())
    assert [piece.signature for piece in checkpoint.pieces] == [
        piece.signature for piece in load_checkpoint(str(checkpoint_folder(name)), LIMITS).pieces
    ]


@pytest.mark.parametrize("max_img_size", [64, 224, 512, 1001])
@pytest.mark.parametrize("patch_size", [14, 16])
def test_no_image_has_more_blocks_than_the_buckets_hold(patch_size: int, max_img_size: int) -> None:
    settings = _settings(min_pixels=4 * (2 * patch_size) ** 2, max_pixels=max_img_size**2, patch_size=patch_size)
    rng = np.random.default_rng(max_img_size)
    strips = [(side, ratio * side) for side in (1, 13, 14, 15, 28, 40, 100) for ratio in (1, 7, 100, 199, 200)]
    most = 0
    for height, width in [*strips, *rng.integers(100, 3000, (500, 2)).tolist()]:
        resized = smart_resize(height, width, 2 * patch_size, settings.min_pixels, settings.max_pixels)
        most = max(most, resized[0] * resized[1] // (2 * patch_size) ** 2)
    assert 0.8 * settings.max_blocks <= most <= settings.max_blocks


def test_the_limits_of_the_user_bound_those_of_the_model(checkpoint_folder: Callable[[str], Path]) -> None:
    folder = str(checkpoint_folder("qwen2_5_vl"))
    limits = Limits(max_tokens=999, max_images=3, max_img_size=128, text_batch=5, image_batch=4)
    checkpoint = load_checkpoint(folder, limits, weights=False)
    assert checkpoint.card.spec.text.max_tokens == 999
    assert checkpoint.card.spec.text.buckets == (64, 128, 192, 256, 384, 512, 768, 1024)
    assert patch_spec(checkpoint).max_pixels == 128 * 128
    assert patch_spec(checkpoint).max_images == 3
    assert {ensemble.name: ensemble.max_batch_size for ensemble in checkpoint.card.ensembles} == {
        "rerank_text": 5,
        "rerank_image": 4,
    }
    unbounded = load_checkpoint(folder, Limits(max_tokens=100_000, max_img_size=5000), weights=False)
    assert unbounded.card.spec.text.max_tokens == 3200  # what lychee-rerank-mm was trained with
    assert patch_spec(unbounded).max_pixels == 1280 * 28 * 28
    assert checkpoint.card.spec.checkpoint_limits == CheckpointLimits(3200, 1280 * 28 * 28)
    assert unbounded.card.spec == load_checkpoint(folder, weights=False).card.spec  # the default takes nothing away


@pytest.mark.parametrize("name", RERANKERS)
def test_the_contract_gives_the_width_of_image_embeddings(load: Callable[[str], Loaded], name: str) -> None:
    loaded = load(name)
    embeds, _, _ = loaded.run(loaded.reference.run(PAIRS_OF[name][-1:]))
    assert patch_spec(loaded.checkpoint).embedding_dim == embeds.shape[-1]
    assert loaded.checkpoint.pieces[0].signature.outputs[0].shape[-1] == embeds.shape[-1]


def test_a_model_that_reads_no_texts_as_documents_has_no_ensemble_for_them(load: Callable[[str], Loaded]) -> None:
    assert [ensemble.name for ensemble in load("monoqwen").checkpoint.card.ensembles] == ["rerank_image"]


def test_a_tokenizer_without_the_label_tokens_is_refused(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("qwen2_5_vl")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    merges = tokenizer["model"]["merges"]
    tokenizer["model"]["merges"] = [merge for merge in merges if "".join(merge) != "yes"]
    assert len(tokenizer["model"]["merges"]) == len(merges) - 1
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(CheckpointError, match=r"splits the label 'yes' into 2 tokens \['y"):
        load_checkpoint(str(folder))


def test_a_checkpoint_without_lm_head_is_refused(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("qwen3_vl")
    _drop_weights(folder, "lm_head.")
    with pytest.raises(CheckpointError, match=r"lack what .* needs: lm_head\.weight"):
        load_checkpoint(str(folder))


def test_a_checkpoint_without_score_head_is_refused(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("jina_m0")
    _drop_weights(folder, "score.")
    with pytest.raises(CheckpointError, match=r"needs: score\.0\.bias, score\.0\.weight, score\.2\.bias"):
        load_checkpoint(str(folder))


def test_the_other_names_of_the_score_head_are_known(
    copy_of: Callable[[str], Path], load: Callable[[str], Loaded]
) -> None:
    folder = copy_of("jina_m0")
    weights = load_file(folder / "model.safetensors")
    names = {"score.0.": "score.dense.", "score.2.": "score.out_proj."}
    renamed = {f"{names.get(name[:8], name[:8])}{name[8:]}": value for name, value in weights.items()}
    assert "score.dense.weight" in renamed
    save_file(renamed, folder / "model.safetensors", {"format": "pt"})
    head = load_checkpoint(str(folder)).pieces[2].module
    for name, value in load("jina_m0").modules["scoring_head"].state_dict().items():
        assert torch.equal(head.state_dict()[name], value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["Qwen2VLModel"]}, "the known rerankers are .*lychee-rerank-mm"),
        ({"architectures": None}, "None"),
        ({"image_token_id": 3}, r"the tokenizer gives <\|image_pad\|> the id \d+, config.json says image_token_id 3"),
        (
            {"use_sliding_window": True, "sliding_window": 128, "max_window_layers": 1, "layer_types": None},
            "sliding windows",
        ),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0, "mrope_section": [2, 3, 3]}}, "'dynamic'"),
    ],
)
def test_a_config_of_another_model_is_refused(
    copy_of: Callable[[str], Path], change: dict[str, object], message: str
) -> None:
    folder = copy_of("monoqwen")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(folder), weights=False)


def test_limits_without_room_for_an_image_are_refused(checkpoint_folder: Callable[[str], Path]) -> None:
    with pytest.raises(CheckpointError, match="allow at least 64 x 64"):
        load_checkpoint(str(checkpoint_folder("qwen3_vl")), Limits(max_img_size=56), weights=False)


def test_limits_without_room_for_a_pair_are_refused(checkpoint_folder: Callable[[str], Path]) -> None:
    checkpoint = load_checkpoint(str(checkpoint_folder("qwen2_5_vl")), Limits(max_tokens=128))
    with pytest.raises(CheckpointError, match="choose a larger profile"):
        checkpoint.make_reference()


@pytest.fixture
def copy_of(checkpoint_folder: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """Return a function from a builder's name to a copy of the checkpoint that may be changed."""

    def copy(name: str) -> Path:
        for path in checkpoint_folder(name).iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        return tmp_path

    return copy


def _drop_weights(folder: Path, prefix: str) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith(prefix)}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


def _part(part: GoldenInput) -> Part:
    return Part(part.text, Image.open(io.BytesIO(part.image_png)) if part.image_png else None)


def _settings(min_pixels: int, max_pixels: int, patch_size: int = 14) -> ImageSettings:
    mean: Sequence[float] = (0.48145466, 0.4578275, 0.40821073)
    std: Sequence[float] = (0.26862954, 0.26130258, 0.27577711)
    return ImageSettings(patch_size, 2, min_pixels, max_pixels, "bicubic", tuple(mean), tuple(std), 2, max_pixels)
