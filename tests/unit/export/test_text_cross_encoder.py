"""Text cross-encoders: what loading accepts, refuses and says."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints.text_cross_encoder import (
    build_bert_reranker,
    build_deberta_reranker,
    build_gte_multilingual_reranker,
    build_jina_v2_reranker,
    build_modernbert_reranker,
    build_xlm_roberta_reranker,
)
from lychee_client.preprocessing.text import find_bucket
from lychee_export.contract.limits import Limits
from lychee_export.errors import CheckpointError
from lychee_export.families import load_checkpoint
from lychee_export.families.attention import attention_bias, local_bias
from safetensors.torch import load_file, save_file

PAIRS = {
    "bert_reranker": "{query}[SEP]{document}",
    "deberta_reranker": "{query}[SEP]{document}",
    "gte_multilingual_reranker": "{query}</s></s>{document}",
    "jina_v2_reranker": "{query}</s></s>{document}",
    "modernbert_reranker": "{query}[SEP]{document}",
    "roberta_reranker": "{query}</s></s>{document}",
    "xlm_roberta_reranker": "{query}</s></s>{document}",
}


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


PACKED = ("bert_reranker", "jina_v2_reranker", "roberta_reranker", "xlm_roberta_reranker")


@pytest.mark.parametrize("name", [name for name in PAIRS if name != "modernbert_reranker"])
def test_pairs_are_as_long_as_the_positions_that_tokens_have(build: Callable[[str], Path], name: str) -> None:
    spec = load_checkpoint(str(build(name)), weights=False).card.spec
    assert (spec.text.max_tokens, spec.text.buckets[-2:]) == (128, (96 if name in PACKED else 120, 128))
    assert load_checkpoint(str(build(name)), Limits(max_tokens=64), weights=False).card.spec.text.max_tokens == 64


def test_long_pairs_have_lengths_of_their_own(tmp_path: Path) -> None:
    edit(build_modernbert_reranker(tmp_path) / "config.json", max_position_embeddings=8192)
    edit(tmp_path / "tokenizer_config.json", model_max_length=8192)
    limits = None, Limits(max_tokens=2048)
    specs = [load_checkpoint(str(tmp_path), limit, weights=False).card.spec for limit in limits]
    assert specs[0].text.buckets[-4:] == (6656, 7168, 7680, 8192)
    assert [spec.text.max_tokens for spec in specs] == [8192, 2048]
    assert [spec.checkpoint_limits and spec.checkpoint_limits.max_tokens for spec in specs] == [8192, 8192]


def test_padding_of_a_pair_stays_below_an_eighth_or_eight_tokens(tmp_path: Path) -> None:
    edit(build_modernbert_reranker(tmp_path) / "config.json", max_position_embeddings=8192)
    edit(tmp_path / "tokenizer_config.json", model_max_length=8192)
    text = load_checkpoint(str(tmp_path), weights=False).card.spec.text
    for tokens in range(text.buckets[0], text.max_tokens + 1):
        assert find_bucket(tokens, text) - tokens < max(8, tokens / 8)


@pytest.mark.parametrize("name", PACKED)
def test_padding_is_not_computed(build: Callable[[str], Path], name: str) -> None:
    encoder: Any = next(piece for piece in load_checkpoint(str(build(name))).pieces if piece.signature.encoder).module
    computed: list[tuple[int, ...]] = []
    for layer in encoder.encoder.layer:
        layer.intermediate.register_forward_hook(lambda module, inputs, output: computed.append(output.shape[:-1]))
    ids = torch.randint(5, 20, (3, 16))
    mask = (torch.arange(16) < torch.tensor([[4], [9], [2]])).long()
    together = encoder(ids, mask)
    assert computed == [(15,)] * (len(computed) - 1) + [(3,)]  # the last layer makes the first tokens alone
    for row, count in enumerate((4, 9, 2)):
        torch.testing.assert_close(encoder(ids[row : row + 1, :count], mask[row : row + 1, :count])[0], together[row])


@pytest.mark.parametrize("name", PACKED)
def test_a_row_that_begins_with_padding_sees_no_other_row(build: Callable[[str], Path], name: str) -> None:
    encoder: Any = next(piece for piece in load_checkpoint(str(build(name))).pieces if piece.signature.encoder).module
    ids, mask = torch.full((2, 4), 6), torch.tensor([[1, 1, 1, 1], [0, 1, 1, 0]])
    others = ids.clone()
    others[0] = 9
    assert torch.equal(encoder(ids, mask)[1], encoder(others, mask)[1])
    assert not torch.equal(encoder(ids, mask)[0], encoder(others, mask)[0])


@pytest.mark.parametrize("name", PAIRS)
def test_runs_are_filled_by_tokens(build: Callable[[str], Path], name: str) -> None:
    encoder = next(
        piece for piece in load_checkpoint(str(build(name)), weights=False).pieces if piece.signature.encoder
    )
    assert encoder.signature.max_run_elements == 1024  # tokens: ids and mask have an element for each


def test_templates_hold_the_separators_of_each_tokenizer(build: Callable[[str], Path]) -> None:
    prompts = {name: load_checkpoint(str(build(name)), weights=False).card.spec.prompt for name in PAIRS}
    assert {name: prompt and prompt.template for name, prompt in prompts.items()} == PAIRS


@pytest.mark.parametrize(
    "activation", ["torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Sigmoid", None]
)
@pytest.mark.parametrize("key", ["sentence_transformers", "sbert_ce_default_activation_function"])
def test_known_activations_are_accepted_and_the_identity_is_told(tmp_path: Path, activation: str, key: str) -> None:
    path = build_bert_reranker(tmp_path) / "config.json"
    value = {"activation_fn": activation} if key == "sentence_transformers" else activation
    edit(path, **({"sentence_transformers": None} | {key: value}))
    notes = load_checkpoint(str(tmp_path)).make_reference().notes
    assert bool(notes) == bool(activation and activation.endswith("Identity"))
    assert all("relevance_score is their sigmoid" in note for note in notes)


def of_another_class(folder: Path) -> None:
    edit(build_bert_reranker(folder) / "config.json", architectures=["BertModel"])


def of_own_code(folder: Path) -> None:
    code = {"AutoModelForSequenceClassification": "modeling_xlm_roberta.XLMRobertaFlashForSequenceClassification"}
    flash = ["XLMRobertaFlashForSequenceClassification"]
    edit(build_xlm_roberta_reranker(folder) / "config.json", architectures=flash, auto_map=code)


def of_an_unknown_type_with_code(folder: Path) -> None:
    code = {"AutoModelForSequenceClassification": "Alibaba-NLP/new-impl--modeling.NewForSequenceClassification"}
    edit(build_xlm_roberta_reranker(folder) / "config.json", model_type="new", auto_map=code)


def of_two_classes(folder: Path) -> None:
    edit(build_bert_reranker(folder) / "config.json", model_type="deberta-v2")


def of_convolutions(folder: Path) -> None:
    edit(build_deberta_reranker(folder) / "config.json", conv_kernel_size=3)


def of_absolute_positions_alone(folder: Path) -> None:
    edit(build_deberta_reranker(folder) / "config.json", relative_attention=False)


def of_code_of_others(build: Callable[[Path], Path], **entries: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        path = build(folder) / "config.json"
        edit(path, auto_map=json.loads(path.read_text())["auto_map"] | entries)

    return make


def with_settings(build: Callable[[Path], Path], **changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(build(folder) / "config.json", **changes)


def with_weights(build: Callable[[Path], Path], name: str, rows: int | None) -> Callable[[Path], None]:
    """Keep so many rows of a weight; None leaves it out."""

    def make(folder: Path) -> None:
        path = build(folder) / "model.safetensors"
        weights = load_file(path)
        weight = weights.pop(name)
        if rows is not None:
            weights[name] = weight[:rows].contiguous()
        save_file(weights, path, metadata={"format": "pt"})

    return make


def of_three_labels(folder: Path) -> None:
    labels = {"0": "contradiction", "1": "entailment", "2": "neutral"}
    edit(build_bert_reranker(folder) / "config.json", id2label=labels)


def of_no_labels(folder: Path) -> None:
    path = build_bert_reranker(folder) / "config.json"
    config = json.loads(path.read_text())
    del config["id2label"], config["label2id"]
    path.write_text(json.dumps(config))


def without_its_head(folder: Path) -> None:
    path = build_bert_reranker(folder) / "model.safetensors"
    weights = load_file(path)
    del weights["classifier.weight"], weights["bert.pooler.dense.bias"]
    save_file(weights, path, metadata={"format": "pt"})


def of_relative_positions(folder: Path) -> None:
    edit(build_bert_reranker(folder) / "config.json", position_embedding_type="relative_key")


def of_another_activation(folder: Path) -> None:
    edit(build_bert_reranker(folder) / "config.json", sentence_transformers={"activation_fn": "torch.nn.Softplus"})


def with_three_separators(folder: Path) -> None:
    path = build_xlm_roberta_reranker(folder) / "tokenizer.json"
    edit(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    content = json.loads(path.read_text())
    pair = content["post_processor"]["pair"]
    content["post_processor"]["pair"] = [*pair[:3], pair[2], *pair[3:]]
    path.write_text(json.dumps(content))


def whose_normalizer_is_dropped(folder: Path) -> None:
    edit(build_xlm_roberta_reranker(folder) / "tokenizer.json", normalizer={"type": "NFKC"})


def of_growing_frequencies(folder: Path) -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    edit(build_modernbert_reranker(folder) / "config.json", rope_parameters={"full_attention": rope})


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "another class": (
        of_another_class,
        r"architectures is \['BertModel'\], expected \['BertForSequenceClassification'\]",
    ),
    "code of its own": (
        of_own_code,
        r"XLMRobertaFlashForSequenceClassification.*Python code of its own .* is never run here.*Take a reranker",
    ),
    "code of an unknown type": (
        of_an_unknown_type_with_code,
        r"unknown model_type 'new'.*brings Python code of its own .*NewForSequenceClassification.* is never run here",
    ),
    "two classes": (
        of_two_classes,
        r"architectures is \['BertForSequenceClassification'\], expected \['DebertaV2ForSequenceClassification'\]",
    ),
    "convolutions": (of_convolutions, r"conv_kernel_size 3, expected True and 0, as in DeBERTa v3"),
    "absolute positions alone": (of_absolute_positions_alone, r"relative_attention is False .* expected True and 0"),
    "jina's names, code of others": (
        of_code_of_others(
            build_jina_v2_reranker,
            AutoModelForSequenceClassification="some/one--modeling_xlm_roberta.XLMRobertaForSequenceClassification",
        ),
        r"unknown model_type None; .*code of its own .*some/one--modeling_xlm_roberta.* is never run here",
    ),
    "jina's names, settings of others": (
        of_code_of_others(build_jina_v2_reranker, AutoConfig="some/one--configuration_xlm_roberta.Config"),
        r"unknown model_type None; .*code of its own .*some/one--configuration_xlm_roberta.* is never run here",
    ),
    "gte's names, code of the folder": (
        of_code_of_others(
            build_gte_multilingual_reranker, AutoModelForSequenceClassification="modeling.NewForSequenceClassification"
        ),
        r"positions of type 'ntk'; .*code of its own .* modeling\.NewForSequenceClassification.* is never run here",
    ),
    "gte's names, another class": (
        with_settings(build_gte_multilingual_reranker, architectures=["NewForTokenClassification"], rope_scaling=None),
        r"unknown model_type 'new'; .*code of its own",
    ),
    "jina with rotary positions": (
        with_settings(build_jina_v2_reranker, position_embedding_type="rotary"),
        r"config\.json: position_embedding_type is 'rotary', expected 'absolute'",
    ),
    "jina without an epsilon": (
        with_settings(build_jina_v2_reranker, layer_norm_eps=None),
        r"does not say layer_norm_eps, for which its authors' code has values of its own",
    ),
    "quantized jina": (
        with_settings(build_jina_v2_reranker, quantization_config={"quant_method": "awq", "bits": 4}),
        r"quantized by awq to 4 bits",
    ),
    "gte with another norm": (
        with_settings(build_gte_multilingual_reranker, layer_norm_type="rms_norm"),
        r"layer_norm_type is 'rms_norm', expected 'layer_norm'",
    ),
    "gte with scores scaled by length": (
        with_settings(build_gte_multilingual_reranker, logn_attention_scale=True),
        r"logn_attention_scale is True, expected False",
    ),
    "gte with matrices apart": (
        with_settings(build_gte_multilingual_reranker, pack_qkv=False),
        r"pack_qkv is False, expected True",
    ),
    "gte with mixed frequencies": (
        with_settings(build_gte_multilingual_reranker, rope_scaling={"type": "ntk", "factor": 8.0, "mixed_b": 0.6}),
        r"rope_scaling is .*'mixed_b': 0\.6.*, expected none or",
    ),
    "gte with another scaling": (
        with_settings(build_gte_multilingual_reranker, rope_scaling={"type": "linear", "factor": 8.0}),
        r"rope_scaling is .*'linear'.*, expected none or .*'ntk'",
    ),
    "gte of two labels": (
        with_settings(build_gte_multilingual_reranker, id2label={"0": "no", "1": "yes"}),
        r"the head has 2 labels .* expected 1",
    ),
    "jina without a matrix": (
        with_weights(build_jina_v2_reranker, "roberta.encoder.layers.1.mixer.Wqkv.weight", None),
        r"lack what FlashXLMRobertaForSequenceClassification needs: .*layer\.1\.attention\.self\.key\.weight",
    ),
    "jina with a short matrix": (
        with_weights(build_jina_v2_reranker, "roberta.encoder.layers.1.mixer.Wqkv.weight", 48),
        r"other shapes .*layer\.1\.attention\.self\.key\.weight is \(16, 32\), expected \(32, 32\)",
    ),
    "gte with a short matrix": (
        with_weights(build_gte_multilingual_reranker, "new.encoder.layer.0.mlp.up_gate_proj.weight", 64),
        r"other shapes .*layers\.0\.mlp\.gate_proj\.weight is \(32, 32\), expected \(48, 32\)",
    ),
    "three labels": (of_three_labels, r"the head has 3 labels .*'contradiction'.*, expected 1: .*trained for ranking"),
    "no labels": (of_no_labels, r"the head has 2 labels \(no id2label\), expected 1"),
    "no head": (
        without_its_head,
        r"lack what BertForSequenceClassification needs: bert\.pooler\.dense\.bias, classifier\.weight",
    ),
    "relative positions": (of_relative_positions, r"position_embedding_type is 'relative_key' .* expected 'absolute'"),
    "another activation": (
        of_another_activation,
        r"activation 'torch\.nn\.Softplus', expected one of torch\.nn\.Ident",
    ),
    "three separators": (
        with_three_separators,
        r"joins 'a' and 'b' to \[.*'</s>', '</s>', '</s>'.*\]; expected one or",
    ),
    "dropped normalizer": (whose_normalizer_is_dropped, r"has a normalizer \(NFKC\), which transformers \S+ drops"),
    "growing frequencies": (of_growing_frequencies, r"rotary positions of the types \['dynamic'\].* are not supported"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_scored_is_refused_with_what_was_seen(tmp_path: Path, name: str) -> None:
    make, message = BAD[name]
    make(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(tmp_path))


def test_names_of_gte_without_their_prefix_are_read_too(tmp_path: Path) -> None:
    folders = [build_gte_multilingual_reranker(tmp_path / name) for name in ("with", "without")]
    path = folders[1] / "model.safetensors"
    weights = {name.removeprefix("new."): weight for name, weight in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})
    pairs = [load_checkpoint(str(folder)).make_reference().golden_pairs for folder in folders]
    assert pairs[0] == pairs[1]


PUBLISHED: dict[str, tuple[dict[str, int], int, int]] = {
    "jina_v2_reranker": (
        {"vocab_size": 250002, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
        | {"intermediate_size": 3072, "max_position_embeddings": 1026},
        1024,
        278,
    ),
    "gte_multilingual_reranker": (
        {"vocab_size": 250048, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
        | {"intermediate_size": 3072, "max_position_embeddings": 8192},
        8192,
        306,
    ),
    "deberta_reranker": (
        {"vocab_size": 128100, "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
        | {"intermediate_size": 4096, "max_position_embeddings": 512, "position_buckets": 256}
        | {"pooler_hidden_size": 1024},
        512,
        435,
    ),
}
"""By builder: the published sizes, the tokens of a pair, and the weights in millions, of which a model card or the size
of the published file in 16 bits tells."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_make_as_many_weights_as_were_published(
    build: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    sizes, tokens, millions = PUBLISHED[name]
    folder = shutil.copytree(build(name), tmp_path / name)
    edit(folder / "config.json", **sizes)
    checkpoint = load_checkpoint(str(folder), weights=False)
    weights = sum(weight.numel() for piece in checkpoint.pieces for weight in piece.module.parameters())
    assert checkpoint.card.spec.text.max_tokens == tokens
    assert round(weights / 1e6) == millions


@pytest.mark.parametrize("scaling", [None, {"type": "ntk", "factor": 1.0}])
def test_frequencies_of_gte_without_a_scaling_are_those_of_its_base(tmp_path: Path, scaling: Any) -> None:
    edit(build_gte_multilingual_reranker(tmp_path) / "config.json", rope_scaling=scaling)
    encoder: Any = load_checkpoint(str(tmp_path)).pieces[0].module
    expected = 20000.0 ** -torch.tensor([0.0, 0.25, 0.5, 0.75])
    torch.testing.assert_close(encoder.frequencies, expected)


@pytest.mark.parametrize("repository", ["jina-reranker-v2-base-multilingual", "xlm-roberta-flash-implementation"])
def test_code_of_jina_is_known_by_its_repository_too(tmp_path: Path, repository: str) -> None:
    owner = f"jinaai/{repository}"
    make = of_code_of_others(
        build_jina_v2_reranker,
        AutoConfig=f"{owner}--configuration_xlm_roberta.XLMRobertaFlashConfig",
        AutoModelForSequenceClassification=f"{owner}--modeling_xlm_roberta.XLMRobertaForSequenceClassification",
    )
    make(tmp_path)
    edit(tmp_path / "config.json", model_type="xlm-roberta")
    assert load_checkpoint(str(tmp_path), weights=False).card.spec.text.max_tokens == 128


def test_local_bias_lets_a_token_read_its_neighbours_and_far_padding_itself() -> None:
    mask = torch.tensor([[1, 1, 1, 0, 0]])
    bias = local_bias(attention_bias(mask, torch.float32), 1)
    seen = (bias[0, 0] == 0).to(torch.int64)
    expected = [[1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 1, 1, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 1]]
    assert seen.tolist() == expected
