"""Tiny random text cross-encoders, with the files and keys that published rerankers have.

Sources: the file listings and configurations of cross-encoder/ms-marco-MiniLM-L6-v2, BAAI/bge-reranker-base,
Alibaba-NLP/gte-reranker-modernbert-base, jinaai/jina-reranker-v2-base-multilingual,
Alibaba-NLP/gte-multilingual-reranker-base and mixedbread-ai/mxbai-rerank-large-v1 on the hub. The names of the weights
of the second last are those of Alibaba-NLP/new-impl, modeling.py; of the third last, those that
convert_roberta_weights_to_flash.py of jinaai/xlm-roberta-flash-implementation writes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from checkpoints.bert_tokenizer import write_bert_tokenizer
from checkpoints.published import edit_json
from checkpoints.random_weights import draw_weights, linear_shapes, norm_shapes, randomize
from checkpoints.siglip import unigram_pieces
from checkpoints.text_tokenizers import MODERN_TOKENS, write_byte_tokenizer, write_xlm_tokenizer

_SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
_ONE_LABEL = {"id2label": {0: "LABEL_0"}, "label2id": {"LABEL_0": 0}}
_ROBERTA_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_DEBERTA_TOKENS = ("[PAD]", "[CLS]", "[SEP]", "[UNK]")
_FLASH_NAMES = (
    ("embeddings.LayerNorm", "emb_ln"),
    ("encoder.layer.", "encoder.layers."),
    ("attention.output.dense", "mixer.out_proj"),
    ("attention.output.LayerNorm", "norm1"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
    ("output.LayerNorm", "norm2"),
)
"""XLM-RoBERTa's names for parts, and jina's, in the order in which they are replaced."""


def build_bert_reranker(folder: Path) -> Path:
    """Write a checkpoint with the layout of cross-encoder/ms-marco-MiniLM-L6-v2."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab_size = write_bert_tokenizer(folder)
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    config = BertConfig(vocab_size=vocab_size, max_position_embeddings=128, **_SIZES, **_ONE_LABEL)
    _save(BertForSequenceClassification(config), folder, seed=5, bias=-5.5)
    activation = {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.1.0.dev0"}
    edit_json(folder / "config.json", sentence_transformers=activation, position_embedding_type="absolute")
    return folder


def build_xlm_roberta_reranker(folder: Path) -> Path:
    """Write a checkpoint with the layout of BAAI/bge-reranker-base, whose positions begin after the padding token's."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab_size = write_xlm_tokenizer(folder)
    config = XLMRobertaConfig(
        vocab_size=vocab_size, max_position_embeddings=130, type_vocab_size=1, pad_token_id=1, **_SIZES, **_ONE_LABEL
    )
    _save(XLMRobertaForSequenceClassification(config), folder, seed=6, bias=-2.8)
    return folder


def build_roberta_reranker(folder: Path) -> Path:
    """Write a checkpoint of plain RoBERTa."""
    folder.mkdir(parents=True, exist_ok=True)
    first, last = "<s>", "</s>"
    pair = [first, "$A", last, last, "$B", last]
    vocab_size = write_byte_tokenizer(folder, _ROBERTA_TOKENS, (first, last), pair, "RobertaTokenizer", 128)
    config = RobertaConfig(
        vocab_size=vocab_size, max_position_embeddings=130, type_vocab_size=1, pad_token_id=1, **_SIZES, **_ONE_LABEL
    )
    _save(RobertaForSequenceClassification(config), folder, seed=7, bias=3.5)
    return folder


def build_modernbert_reranker(folder: Path) -> Path:
    """Write a checkpoint with the layout of Alibaba-NLP/gte-reranker-modernbert-base: float16, means, old keys."""
    folder.mkdir(parents=True, exist_ok=True)
    first, last = "[CLS]", "[SEP]"
    pair = [first, "$A", last, "$B", last]
    vocab_size = write_byte_tokenizer(folder, MODERN_TOKENS, (first, last), pair, "PreTrainedTokenizerFast", 1024)
    ids = {"cls_token_id": 1, "bos_token_id": 1, "sep_token_id": 2, "eos_token_id": 2, "pad_token_id": 3}
    config = ModernBertConfig(
        vocab_size=vocab_size,
        max_position_embeddings=1024,
        local_attention=8,
        classifier_pooling="mean",
        **(_SIZES | {"num_hidden_layers": 4}),
        **ids,
        **_ONE_LABEL,
    )
    _save(ModernBertForSequenceClassification(config), folder, seed=8, bias=-2.3, dtype=torch.float16)
    thetas = {"global_rope_theta": 160000.0, "local_rope_theta": 10000.0, "global_attn_every_n_layers": 3}
    edit_json(folder / "config.json", layer_types=None, rope_parameters=None, layer_norm_eps=1e-5, **thetas)
    return folder


def build_jina_v2_reranker(folder: Path) -> Path:
    """Write a checkpoint with the layout of jinaai/jina-reranker-v2-base-multilingual: bfloat16, no model_type."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab_size = write_xlm_tokenizer(folder, longest=1024)
    sizes = _SIZES | {"vocab_size": vocab_size, "max_position_embeddings": 130, "type_vocab_size": 1}
    model = XLMRobertaForSequenceClassification(XLMRobertaConfig(pad_token_id=1, **sizes, **_ONE_LABEL))
    _spread(model, seed=11, bias=-0.2)
    weights = {}
    for name, value in model.state_dict().items():
        if ".self." not in name:
            for theirs, jinas in _FLASH_NAMES:
                name = name.replace(theirs, jinas)
            weights[name] = value
        elif ".query." in name:
            parts = [model.state_dict()[name.replace("query", part)] for part in ("query", "key", "value")]
            fused = name.replace("encoder.layer.", "encoder.layers.").replace("attention.self.query", "mixer.Wqkv")
            weights[fused] = torch.cat(parts)
    code = {
        "AutoConfig": "configuration_xlm_roberta.XLMRobertaFlashConfig",
        "AutoModel": "modeling_xlm_roberta.XLMRobertaModel",
        "AutoModelForSequenceClassification": "modeling_xlm_roberta.XLMRobertaForSequenceClassification",
    }
    config = {"architectures": ["XLMRobertaForSequenceClassification"], "auto_map": code, "num_labels": 1}
    config |= {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-5}
    config |= {"position_embedding_type": "absolute", "torch_dtype": "bfloat16", "use_flash_attn": True}
    _write(folder, config | sizes | _ONE_LABEL, weights, torch.bfloat16)
    return folder


def build_gte_multilingual_reranker(folder: Path) -> Path:
    """Write a checkpoint with the layout of Alibaba-NLP/gte-multilingual-reranker-base: float16, frequencies by ntk."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab_size = write_xlm_tokenizer(folder, longest=32768)
    sizes = _SIZES | {"vocab_size": vocab_size, "max_position_embeddings": 128, "type_vocab_size": 1}
    width, middle = sizes["hidden_size"], sizes["intermediate_size"]
    shapes = {"new.embeddings.word_embeddings.weight": (vocab_size, width)}
    shapes |= {"new.embeddings.token_type_embeddings.weight": (1, width)} | norm_shapes(
        "new.embeddings.LayerNorm", width
    )
    for index in range(sizes["num_hidden_layers"]):
        layer = f"new.encoder.layer.{index}"
        shapes |= linear_shapes(f"{layer}.attention.qkv_proj", 3 * width, width)
        shapes |= linear_shapes(f"{layer}.attention.o_proj", width, width)
        shapes |= {f"{layer}.mlp.up_gate_proj.weight": (2 * middle, width)}
        shapes |= linear_shapes(f"{layer}.mlp.down_proj", width, middle)
        shapes |= norm_shapes(f"{layer}.attn_ln", width) | norm_shapes(f"{layer}.mlp_ln", width)
    shapes |= linear_shapes("new.pooler.dense", width, width) | linear_shapes("classifier", 1, width)
    weights = draw_weights(shapes, seed=9)
    weights["classifier.weight"] = weights["classifier.weight"] * 3
    weights["classifier.bias"] = torch.tensor([0.5])
    owner = "Alibaba-NLP/new-impl--"
    code = {
        "AutoConfig": f"{owner}configuration.NewConfig",
        "AutoModel": f"{owner}modeling.NewModel",
        "AutoModelForSequenceClassification": f"{owner}modeling.NewForSequenceClassification",
    }
    config = {"architectures": ["NewForSequenceClassification"], "auto_map": code, "model_type": "new"}
    config |= {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "layer_norm_type": "layer_norm", "pad_token_id": 1}
    config |= {"logn_attention_clip1": False, "logn_attention_scale": False, "pack_qkv": True, "torch_dtype": "float16"}
    config |= {"position_embedding_type": "rope", "rope_scaling": {"factor": 8.0, "type": "ntk"}, "rope_theta": 20000}
    config |= {"unpad_inputs": False, "use_memory_efficient_attention": False}
    _write(folder, config | sizes | _ONE_LABEL, weights, torch.float16)
    return folder


def build_deberta_reranker(folder: Path) -> Path:
    """Write a checkpoint with the layout of mixedbread-ai/mxbai-rerank-large-v1: float16, buckets of distances."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab_size = _write_deberta_tokenizer(folder)
    config = DebertaV2Config(
        vocab_size=vocab_size,
        max_position_embeddings=128,
        max_relative_positions=-1,
        relative_attention=True,
        position_buckets=16,
        pos_att_type=["p2c", "c2p"],
        share_att_key=True,
        norm_rel_ebd="layer_norm",
        position_biased_input=False,
        pooler_hidden_size=32,
        **_SIZES,
        **_ONE_LABEL,
    )
    _save(DebertaV2ForSequenceClassification(config), folder, seed=11, bias=-1.6, gain=1.0, dtype=torch.float16)
    return folder


def _write(folder: Path, config: dict[str, Any], weights: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    stored = {name: value.to(dtype).contiguous() for name, value in weights.items()}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})


def _save(
    model: Any, folder: Path, seed: int, bias: float, dtype: torch.dtype = torch.float32, gain: float = 1.5
) -> None:
    _spread(model, seed, bias, gain)
    model.to(dtype).save_pretrained(folder)


def _spread(model: Any, seed: int, bias: float, gain: float = 1.5) -> None:
    """Draw weights; the bias of the last layer moves the scores of usual texts to the middle of their range."""
    randomize(model, seed=seed, gain=gain)
    last = model.classifier if isinstance(model.classifier, torch.nn.Linear) else model.classifier.out_proj
    with torch.no_grad():
        last.weight.mul_(3)
        last.bias.fill_(bias)


def _write_deberta_tokenizer(folder: Path) -> int:
    """Write tokenizer.json and tokenizer_config.json of DeBERTa v3's kind; return the number of tokens.

    The published tokenizer.json has the normalizer of its SentencePiece file, which is NFKC but for a few characters.
    """
    pieces = [(token, 0.0) for token in _DEBERTA_TOKENS] + unigram_pieces()[3:]
    tokenizer = Tokenizer(Unigram([*pieces, ("[MASK]", 0.0)], unk_id=3))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Strip(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(prepend_scheme="always")])
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.add_special_tokens([*_DEBERTA_TOKENS[:3], "[MASK]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    tokens = {"bos_token": "[CLS]", "cls_token": "[CLS]", "eos_token": "[SEP]", "sep_token": "[SEP]"}
    tokens |= {"pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
    config = {"tokenizer_class": "DebertaV2Tokenizer", "model_max_length": 512, "do_lower_case": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens | config | {"vocab_type": "spm"}))
    return tokenizer.get_vocab_size()
